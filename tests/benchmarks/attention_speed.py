"""What it costs to record what a model looks at, and how soon the map of 10,000 faces is there.

.venv/bin/python tests/benchmarks/attention_speed.py [--rounds 3]   (a minute or two; the map needs Chromium and Playwright)
A test of 24 samples of three views in texture and normals by ViT-B-32 with random weights, with and without recording; the
same heads on embeddings, where no tower hides the cost; then a map of 10,000 faces in a browser that knows nothing yet.
Exit code 0 when recording costs < 5 % of a test with a tower and < 1 ms a sample without, and the map is there in < 5 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from browser import browsed, find_chromium, served  # noqa: E402
from conftest import CLASSES, random_text, write_tiny_cache  # noqa: E402
from recipes import make_recipe  # noqa: E402
from test_viewer_attention import big_fold  # noqa: E402

from preprocess.viewer.run_records import RunRecords  # noqa: E402
from preprocess.viewer.site import Site  # noqa: E402
from shared.cache import open_cache  # noqa: E402
from train.config import RunConfig, TowerConfig  # noqa: E402
from train.data.batch_transform import BatchTransform  # noqa: E402
from train.data.embeddings import Embeddings  # noqa: E402
from train.data.items import find_items  # noqa: E402
from train.data.prompts import mean_prompts  # noqa: E402
from train.inference.attention_records import AttentionTable  # noqa: E402
from train.inference.score import score_items  # noqa: E402
from train.model.facet import Facet, FacetConfig  # noqa: E402
from train.model.image_tower import build_tower, read_model_config  # noqa: E402
from train.tasks.item import Item  # noqa: E402

MODALITIES = ("texture", "normal")
TEXT = random_text(CLASSES, 512, "none")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache"
        write_tiny_cache(path, model="none", size_px=224, modalities=MODALITIES, text_dim=512)
        with_tower = compare(path, rounds, copies=1, on_embeddings=False)
        on_embeddings = compare(path, rounds, copies=100, on_embeddings=True)
        seconds = statistics.median(open_map(path) for _ in range(rounds))
    print("| | plain, s | recorded, s | more | a sample |\n|---|---|---|---|---|")
    for name, (plain, recorded, num) in (("ViT-B-32", with_tower), ("heads on embeddings", on_embeddings)):
        more = recorded - plain
        print(f"| {name} | {plain:.2f} | {recorded:.2f} | {more / plain:+.1%} | {1000 * more / num:.3f} ms |")
    print(f"\nmap of 10,000 faces in a new browser: {seconds:.1f} s")
    costs_little = (
        with_tower[1] < 1.05 * with_tower[0] and on_embeddings[1] - on_embeddings[0] < 1e-3 * on_embeddings[2]
    )
    return 0 if costs_little and seconds < 5 else 1


def compare(path: Path, rounds: int, *, copies: int, on_embeddings: bool) -> tuple[float, float, int]:
    """Seconds of a test without and with recording, the medians of rounds taken in turn; the number of samples."""
    cache = open_cache(path)
    items = find_items(cache, MODALITIES) * copies
    model_config = read_model_config("ViT-B-32")
    tower = TowerConfig("ViT-B-32", "none", model_config, 224, (0.5,) * 3, (0.25,) * 3, "", True)
    recipe = make_recipe(classes=CLASSES, modalities=MODALITIES, frames=1, batch_size=24)
    config = RunConfig(recipe, tower, "tiny", "", "", cache.info.settings, "", 512, True, "")
    facet = Facet(build_tower(model_config), mean_prompts(TEXT), 10.0, FacetConfig(tower_dim=512, num_modalities=2))
    table = None
    if on_embeddings:
        num = len(cache.samples)
        table = Embeddings(torch.randn(1, num, 2, 3, 512), np.arange(num), np.ones((num, 2), bool))
    transform = BatchTransform(MODALITIES, cache.info.settings.views, tower, torch.device("cpu"), embeddings=table)

    def test(items: Sequence[Item], recorded: bool) -> float:
        began = time.perf_counter()
        looked = AttentionTable(items, 1, TEXT) if recorded else None
        score_items(facet, cache, items, transform, config, looked)
        if looked is not None:
            looked.finish(CLASSES, MODALITIES, transform.views)
        return time.perf_counter() - began

    test(items, True)  # the first pass allocates
    plain, recorded = zip(*[(test(items, False), test(items, True)) for _ in range(rounds)], strict=True)
    return statistics.median(plain), statistics.median(recorded), len(items)


def open_map(path: Path) -> float:
    """Seconds from the address to the drawn map, the projection included."""
    site = Site(open_cache(path), RunRecords("large", folds=(big_fold(24, 10_000),)))
    with served(site) as address, browsed(find_chromium()) as watched:
        began = time.perf_counter()
        watched.page.goto(address + "/map")
        watched.until("document.querySelector('#map-canvas')?.dataset.drawn")
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
