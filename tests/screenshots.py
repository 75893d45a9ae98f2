"""Makes the manuals' pictures of the viewer and of a report anew, from synthetic faces.

.venv/bin/python tests/screenshots.py   (three minutes; with Chromium and Playwright; writes .github/viewer-*.png, report.png)
Two of the data set's 200 scans are spoilt first, one black and one mirrored, so that the coverage page has something to show.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from browser import Watched, browsed, find_chromium, served  # noqa: E402

from preprocess.viewer.site import open_site  # noqa: E402

OUT = ROOT / ".github"
MOST_BYTES = 300_000
SHOWN = "[...document.querySelectorAll('img')].every(i => i.complete && i.naturalWidth > 0)"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        scans, cache, run, report, frames, stabilised = (
            Path(folder) / name for name in ("scans", "cache", "run", "report.html", "frames", "stabilised")
        )
        _run("preprocess", "synth", "bu3dfe", "--out", scans, "--subjects", 8)
        textures = sorted(scans.glob("*/*_F3D.bmp"))
        _spoil(textures[60], lambda image: image.point(lambda value: value // 12))
        _spoil(textures[130], ImageOps.mirror)
        _run("preprocess", "build", "bu3dfe", "--root", scans, "--cache", cache)
        _run("preprocess", "prompts", "--cache", cache, "--model", "facet-tiny", "--pretrained", "none")
        _run(
            "train",
            "fit",
            "--cache",
            cache,
            "--out",
            run,
            "--folds",
            4,
            "--fold",
            0,
            "--epochs",
            8,
            "--batch-size",
            8,
            "--modalities",
            "normal",
        )
        _run("train", "report", run, "--out", report)
        site = open_site(cache, run)
        site.checker.findings(wait_seconds=120)
        with served(site) as address, browsed(find_chromium()) as watched:
            watched.page.set_viewport_size({"width": 1160, "height": 820})
            watched.page.goto(f"{address}/?label=happiness")
            watched.until(f"document.querySelector('#filter-view') && {SHOWN}")
            _save(watched, "viewer-wall.png")
            tested = min(site.run.predictions)
            watched.page.goto(f"{address}/sample/{tested}")
            watched.until("document.querySelectorAll('.views canvas').length === 3")
            watched.page.locator("#light-from").fill("50")
            watched.until(SHOWN)
            _save(watched, "viewer-sample.png")
            watched.page.set_viewport_size({"width": 900, "height": 640})
            watched.page.goto(f"{address}/coverage")
            watched.until(f"document.querySelectorAll('#findings img').length && {SHOWN}")
            watched.page.locator("#findings").evaluate("part => part.scrollIntoView()")
            _save(watched, "viewer-coverage.png")
            watched.page.goto(report.as_uri())
            watched.page.get_by_role("heading", name="Confusion").first.evaluate("part => part.scrollIntoView()")
            watched.until(SHOWN)
            _save(watched, "report.png")
        _run("preprocess", "synth", "bp4d", "--out", frames, "--subjects", 1, "--frames", 12)
        _run("preprocess", "build", "bp4d", "--root", frames, "--cache", stabilised)
        with served(open_site(stabilised)) as address, browsed(find_chromium()) as watched:
            watched.page.set_viewport_size({"width": 1160, "height": 642})
            watched.page.goto(f"{address}/play/24")  # surprise
            watched.until("document.querySelector('#player-before')")
            watched.page.keyboard.press("b")
            watched.page.locator("#scrubber").fill("6")
            watched.until(f"document.querySelectorAll('.screen img').length === 2 && {SHOWN}")
            _save(watched, "viewer-player.png")
    return 0


def _run(package: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", package, *map(str, arguments)], cwd=ROOT, check=True)


def _spoil(texture: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    with Image.open(texture) as image:
        spoilt: Any = change(image.convert("RGB"))
    spoilt.save(texture)


def _save(watched: Watched, name: str) -> None:
    """As PNG of 128 colours: a fifth of the size, hardly another picture."""
    watched.page.evaluate("document.activeElement.blur()")
    shot = Image.open(io.BytesIO(watched.page.screenshot())).convert("RGB")
    shot.quantize(128, method=Image.Quantize.MEDIANCUT).save(OUT / name, optimize=True)
    size = (OUT / name).stat().st_size
    assert size < MOST_BYTES, f"{name}: {size:,} bytes, more than {MOST_BYTES:,}"
    print(f"{OUT / name}: {size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
