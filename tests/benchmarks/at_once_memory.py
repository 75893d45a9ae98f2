"""Peak memory of models that train at once, beside what `at_once.model.stacked_model_bytes` expects. On Linux, on a CPU.

    python tests/benchmarks/at_once_memory.py

Exit code 0: no training takes more than 1.05 × of what is expected, and none of the whole model less than 0.6 ×.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from torch import nn

from shared.schema import View
from train.config import Recipe
from train.data.embeddings import Embeddings
from train.data.items import Item
from train.model.facet import Facet
from train.studies.crossval.at_once.batches import Batches
from train.studies.crossval.at_once.model import Stack, stacked_model_bytes
from train.training.loop import TrainingSet

MOST, LEAST = 1.05, 0.6
NUM_STEPS = 3
DEFAULTS: dict[str, Any] = {
    "models": 8, "batch": 16, "frames": 1, "modalities": 1, "views": 3, "tower_dim": 512, "dim": 512, "classes": 6,
    "reference": False, "ema": 0.0, "plain": False,
}  # fmt: skip
CASES: list[dict[str, Any]] = [
    {},
    {"models": 1},
    {"models": 16},
    {"modalities": 3},
    {"batch": 64},
    {"batch": 64, "modalities": 3},
    {"models": 4, "batch": 128, "modalities": 2},
    {"models": 4, "batch": 128, "views": 1, "classes": 30},
    {"frames": 6},
    {"frames": 6, "modalities": 3},
    {"models": 1, "batch": 64, "frames": 6, "modalities": 3},
    {"models": 4, "frames": 6, "modalities": 2, "reference": True},
    {"modalities": 2, "tower_dim": 1024, "dim": 768, "classes": 7},
    {"models": 4, "batch": 128, "modalities": 2, "tower_dim": 1024, "dim": 256},
    {"batch": 32, "modalities": 2, "views": 5, "tower_dim": 128, "dim": 128},
    {"models": 16, "batch": 32, "modalities": 2, "views": 9, "tower_dim": 128, "dim": 128},
    {"frames": 12, "modalities": 2, "tower_dim": 128, "dim": 128},
    {"frames": 12, "modalities": 2, "views": 9, "tower_dim": 128, "dim": 128, "classes": 30},
    {"ema": 0.99},
    {"batch": 64, "modalities": 2, "plain": True},
]


def main() -> int:
    torch.set_num_threads(1)
    print("| training | weights (M) | MB a model | expected | ratio |\n|---|---|---|---|---|")
    good = True
    for case in CASES:
        options = DEFAULTS | case
        num_weights, measured, expected = in_a_process_of_its_own(options)
        ratio = measured / expected
        good &= ratio <= MOST and (options["plain"] or ratio >= LEAST)
        text = (
            ", ".join(f"{name} {value}" for name, value in case.items()) or "8 models, batch 16, 3 views, 512 features"
        )
        print(
            f"| {text} | {num_weights / 1e6:.2f} | {measured / 1e6:.1f} | {expected / 1e6:.1f} | {ratio:.2f} |",
            flush=True,
        )
    print(
        f"\n{'every' if good else 'NOT every'} training between {LEAST} and {MOST} of what is expected (plain ones: below)"
    )
    return 0 if good else 1


def in_a_process_of_its_own(options: dict[str, Any]) -> tuple[int, float, float]:
    """What `measure` gives: what one training leaves behind in the allocator does not count for the next."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(measure(**options)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        found = json.loads(file.read())
    os.waitpid(child, 0)
    return found[0], found[1], found[2]


def measure(
    *, models: int, batch: int, frames: int, modalities: int, views: int, tower_dim: int, dim: int, classes: int,
    reference: bool, ema: float, plain: bool,
) -> tuple[int, float, int]:  # fmt: skip
    """Weights of a model; bytes that each takes at the peak of a few steps, the embeddings aside; bytes expected."""
    names = tuple(f"class {c}" for c in range(classes))
    recipe = Recipe(
        classes=names,
        modalities=("texture", "normal", "depth")[:modalities],
        frames=frames,
        batch_size=batch,
        tune="frozen",
        augment="flip",
        relative="onset" if reference else "none",
        ema=ema,
        lambda_con=0.0 if plain else 0.5,
    )
    rng = np.random.default_rng(0)
    num_items = 2 * batch
    rows = np.arange(num_items * frames).reshape(num_items, frames).tolist()
    items = [Item(f"{i}", "S", "", tuple(r), i, reference=r[0] if reference else None) for i, r in enumerate(rows)]
    present = np.ones((num_items * frames, modalities), bool)
    features = torch.randn(2, len(present), modalities, views, tower_dim)
    table = Embeddings(features, np.arange(len(present)), present)
    training = TrainingSet(items, rng.integers(0, classes, num_items))
    text = rng.normal(size=(classes, dim)).astype(np.float32)
    facet = Facet(
        nn.Identity(),
        tower_dim,
        text / np.linalg.norm(text, axis=1, keepdims=True),
        14.3,
        num_modalities=modalities,
        num_frames=frames,
        fusion="mean" if plain else "cvsa",
        head="cosine" if plain else "mtgf",
        consistency=not plain,
    )
    cameras = tuple(View(10 * i) for i in range(views))

    def train(num: int) -> None:
        weights = {name: p.detach() for name, p in facet.named_parameters()}
        stack = Stack([{n: w.clone() for n, w in weights.items()} for _ in range(num)], facet, recipe, [100] * num)
        batches = Batches([training] * num, table, cameras, recipe)
        for step in range(NUM_STEPS):
            stack.step(step, batches.at(step, num), None)

    train(1)  # code that is loaded when it is first used
    before = reset_peak_bytes()
    train(models)
    num_weights = sum(p.numel() for p in facet.parameters())
    expected = stacked_model_bytes(
        num_weights, averaged=bool(ema), batch_size=batch, num_frames=frames, has_reference=reference,
        num_views=modalities * views, num_classes=classes, dim=dim, tower_dim=tower_dim,
    )  # fmt: skip
    return num_weights, (peak_bytes() - before) / models, expected


def reset_peak_bytes() -> int:
    """Lets the kernel count the peak from now on; what there is now."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main())
