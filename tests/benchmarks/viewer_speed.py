"""The viewer in a browser on a cache of 10,000 samples: the first picture, and a page of sixty.

.venv/bin/python tests/benchmarks/viewer_speed.py [--rounds 5]   (under a minute; needs Chromium and Playwright)
Rows: three 224 × 224 views of texture, normal and depth. Each round is a browser that knows nothing yet; the server's memory
of drawn pictures is warm for the page that is gone back to, and cold for the others.
Exit code 0 when, in the middle round, the first picture is there in < 1 s and a page of 60 samples in < 0.3 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

from browser import Watched, browsed, find_chromium, open_site, served  # noqa: E402
from conftest import write_tiny_cache  # noqa: E402
from test_viewer import extend_rows  # noqa: E402

SHOWN = "[...document.querySelectorAll('.tile img')].filter(i => i.complete && i.naturalWidth > 0).length"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache"
        write_tiny_cache(
            path,
            model="none",
            num_subjects=22,  # so that pages 1 and 2 have images of their own
            size_px=224,
            modalities=("texture", "normal", "depth"),
        )
        extend_rows(path, 10_000)
        for _ in range(parser.parse_args().rounds):
            with served(open_site(path)) as address, browsed(find_chromium()) as watched:
                rounds.append(_visit(watched, address))
    names = (
        "first picture",
        "first page, all pictures",
        "another page, samples",
        "… all 60 pictures",
        "back, all pictures",
    )
    middle = [statistics.median(values) for values in zip(*rounds, strict=True)]
    print("| | seconds (median) | range |\n|---|---|---|")
    for name, value, values in zip(names, middle, zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {value:.2f} | {min(values):.2f} to {max(values):.2f} |")
    return 0 if middle[0] < 1 and middle[2] < 0.3 else 1


def _visit(watched: Watched, address: str) -> list[float]:
    began = time.perf_counter()
    watched.page.goto(address, wait_until="commit")
    watched.until(f"{SHOWN} > 0")
    first = time.perf_counter() - began
    watched.until(f"{SHOWN} === 60")
    return [first, time.perf_counter() - began, *_turn(watched, "PageDown", 2), _turn(watched, "PageUp", 1)[1]]


def _turn(watched: Watched, key: str, page: int) -> tuple[float, float]:
    """Seconds until a page's samples stand there, and until all of their pictures do."""
    began = time.perf_counter()
    watched.page.keyboard.press(key)
    watched.until(f"document.querySelector('.pages .where').textContent.startsWith('page {page} ')")
    samples = time.perf_counter() - began
    watched.until(f"{SHOWN} === 60")
    return samples, time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
