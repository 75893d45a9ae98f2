"""Does the GPU ever wait? ViT-B/16 fully tuned on three views in bf16: a training from a cache, against the same step on one
batch that stays on the device, against the device's own rate of matrix products, and against rendering in the loop.

    python tests/benchmarks/gpu_training.py [--batches 64,128,256] [--preload none|ram|gpu] [--steps 60] [--out DIR]
    python tests/benchmarks/gpu_training.py --device cpu --tiny      the same code, small, to see that it works

Needs no weights and no licence: the faces are drawn, the weights random. Exit code 0: waiting < 2 %, a step at most 1.03 × the
step on a kept batch, MFU ≥ 45 % of the measured rate, all at the batch size of the highest rate; 1: missed; 2: no GPU here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.rendered_scans import render_batches  # noqa: E402
from conftest import TINY_CLIP, random_text  # noqa: E402
from recipes import make_recipe  # noqa: E402

from preprocess.build.build import build_cache  # noqa: E402
from preprocess.datasets import DATASETS  # noqa: E402
from preprocess.synth.layouts import LAYOUTS  # noqa: E402
from preprocess.synth.population import write_population  # noqa: E402
from shared.cache import Cache, open_cache  # noqa: E402
from shared.runs import LOG_JSONL  # noqa: E402
from shared.schema import RenderSettings, View  # noqa: E402
from train.config import RunConfig, TowerConfig  # noqa: E402
from train.data.augment import draw_parameters  # noqa: E402
from train.data.batch_transform import BatchTransform  # noqa: E402
from train.data.items import find_items  # noqa: E402
from train.data.preload import preload_images  # noqa: E402
from train.data.prompts import mean_prompts  # noqa: E402
from train.data.stream import RawBatch, StoredImages  # noqa: E402
from train.data.transfer import allocator, copy_small  # noqa: E402
from train.model.batch import Batch  # noqa: E402
from train.model.facet import Facet  # noqa: E402
from train.model.factory import build_facet  # noqa: E402
from train.model.image_tower import build_tower, read_model_config  # noqa: E402
from train.options import Recipe  # noqa: E402
from train.tasks.criterion import CrossEntropy  # noqa: E402
from train.tasks.item import Item  # noqa: E402
from train.tasks.task import find_task  # noqa: E402
from train.training.flops import count_flops_per_sample  # noqa: E402
from train.training.loop import TrainingSet, train  # noqa: E402
from train.training.optimizer import build_optimizer  # noqa: E402
from train.training.progress import LOG_EVERY  # noqa: E402
from train.training.step import train_step  # noqa: E402

DATASET = DATASETS["bu3dfe"]
VIEWS = (View(0), View(20), View(-20))
WAIT_SHARE, STEP_RATIO, MFU = 0.02, 1.03, 0.45
WARM_UP_LINES = 2  # of the log: compiling, the first read of each file
RENDERED_STEPS = 4


@dataclass(frozen=True)
class Bench:
    """What all measurements have in common."""

    scans: Path
    cache: Cache
    items: list[Item]
    tower: TowerConfig
    recipe: Recipe
    device: torch.device
    preload: str
    num_steps: int

    def transform(self) -> BatchTransform:
        return BatchTransform(self.recipe.modalities, VIEWS, self.tower, self.device)

    def build(self, batch_size: int) -> tuple[Facet, Recipe]:
        recipe = dataclasses.replace(self.recipe, batch_size=batch_size)
        dim = self.tower.config["embed_dim"]
        text = random_text(recipe.classes, dim, self.tower.name)
        config = RunConfig(recipe, self.tower, DATASET.name, "", "", self.cache.info.settings, "", dim, True, "")
        tower = build_tower(self.tower.config)
        return build_facet(config, self.device, tower, mean_prompts(text), text.logit_scale), recipe

    def training(self, batch_size: int) -> TrainingSet:
        """As many full batches as the steps need in one epoch; scans repeat, each time with another place and so change."""
        num = batch_size * self.num_steps
        items = [dataclasses.replace(self.items[i % len(self.items)], index=i) for i in range(num)]
        return TrainingSet(items, find_task(self.recipe.task).label_items(items, self.recipe.classes))


@dataclass(frozen=True)
class Row:
    """What one batch size gave; seconds of a step."""

    batch_size: int
    kept_seconds: float
    seconds: float
    wait_share: float
    mfu: float
    memory_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny tower on 32 px: only to see that this script works")
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--batches", default="64,128,256,512")
    parser.add_argument("--steps", type=int, default=60, help="a measurement")
    parser.add_argument("--subjects", type=int, default=12, help="25 scans each")
    parser.add_argument("--preload", default="none", choices=("none", "ram", "gpu"))
    parser.add_argument("--out", type=Path, help="folder for scans and cache (default: a temporary one)")
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured; --device cpu --tiny shows that this script works")
        return 2
    if chosen.tiny:
        chosen.batches, chosen.steps, chosen.subjects = "4,8", 5 * LOG_EVERY, 1
    with tempfile.TemporaryDirectory() as temporary:
        bench = prepare(chosen, chosen.out or Path(temporary))
        name = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else f"{os.cpu_count()} cores"
        peak = measure_matmul(bench.device, 512 if chosen.tiny else 8192)
        kind = "bf16" if bench.device.type == "cuda" else "f32"
        print(f"{name}, torch {torch.__version__}; {kind} matrix product {peak / 1e12:.2f} TFLOP/s; {bench.tower.name}, "
              f"{len(VIEWS)} views, images {bench.preload}\n")  # fmt: skip
        rows = []
        for batch_size in map(int, chosen.batches.split(",")):
            try:
                rows.append(measure(bench, batch_size, peak, Path(temporary)))
            except torch.OutOfMemoryError:
                print(f"a batch of {batch_size} does not fit")
                break
            finally:
                torch._dynamo.reset()
        if not rows:
            return 1
        best = max(rows, key=lambda row: row.batch_size / row.seconds)
        rendered = measure_rendering(bench, best.batch_size)
    print_table(rows, best, rendered)
    missed = best.wait_share >= WAIT_SHARE or best.seconds > STEP_RATIO * best.kept_seconds or best.mfu < MFU
    return int(missed)


def prepare(chosen: argparse.Namespace, out: Path) -> Bench:
    """Draws the faces, builds the cache, describes the tower."""
    if chosen.tiny:
        tower = TowerConfig("tiny", "none", TINY_CLIP, 32, (0.5,) * 3, (0.25,) * 3, "", True)
    else:
        config = read_model_config(chosen.model)
        size = config["vision_cfg"].get("image_size", 224)
        tower = TowerConfig(chosen.model, "none", config, size, (0.5,) * 3, (0.25,) * 3, "", True)
    scans, cache_path = out / "scans", out / "cache"
    if not scans.exists():
        write_population(LAYOUTS["bu3dfe"], scans, num_subjects=chosen.subjects)
    settings = RenderSettings(views=VIEWS, size_px=tower.image_size, modalities=("texture",))
    build_cache(DATASET, scans, cache_path, settings)
    cache = open_cache(cache_path)
    recipe = make_recipe(
        classes=tuple(cache.info.class_names), modalities=("texture",), frames=1, epochs=1, lr=1e-4, tower_lr=1e-6
    )
    items = [item for item in find_items(cache, recipe.modalities) if item.class_name]
    return Bench(scans, cache, items, tower, recipe, torch.device(chosen.device), chosen.preload, chosen.steps)


def measure_matmul(device: torch.device, size: int) -> float:
    """Floating point operations a second of a large dense product, one after the other: bf16 on a GPU, f32 on a CPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(time_calls(lambda: torch.mm(a, b), 50, device) for _ in range(4))


def time_calls(call: Callable[[], object], num: int, device: torch.device) -> float:
    """Seconds a call, the device's own work included."""
    wait(device)
    started = time.perf_counter()
    for _ in range(num):
        call()
    wait(device)
    return (time.perf_counter() - started) / num


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(bench: Bench, batch_size: int, peak: float, folder: Path) -> Row:
    """A training by `training.loop`, then its step on one batch that stays on the device, with the same model."""
    model, recipe = bench.build(batch_size)
    training, transform = bench.training(batch_size), bench.transform()
    source = preload_images(
        bench.cache, training.items, recipe.modalities, bench.preload, bench.device, allocate=allocator(bench.device)
    ) or StoredImages(bench.cache, allocate=allocator(bench.device))
    transform = dataclasses.replace(transform, source=source)
    flops = count_flops_per_sample(model, example(bench))  # before the tower is compiled
    run = folder / f"run{batch_size}"
    run.mkdir()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    train(run, model, bench.cache, training, transform, recipe, checkpoint_every=10**9)
    lines = [json.loads(line) for line in (run / LOG_JSONL).read_text().splitlines()][WARM_UP_LINES:]
    shutil.rmtree(run)  # a checkpoint of gigabytes
    seconds = sum(LOG_EVERY * batch_size / line["samples_per_second"] for line in lines) / len(lines) / LOG_EVERY
    kept = time_step(bench, model, recipe, bench.num_steps - WARM_UP_LINES * LOG_EVERY, keep_batch(bench, batch_size))
    return Row(
        batch_size,
        kept,
        seconds,
        sum(line["wait_share"] for line in lines) / len(lines),
        flops * batch_size / seconds / peak,
        max(line["memory_bytes"] for line in lines),
    )


def example(bench: Bench) -> Batch:
    """One sample's shapes."""
    size = bench.tower.image_size
    return Batch(
        images=torch.zeros(1, 1, 1, len(VIEWS), 3, size, size, device=bench.device),
        present=torch.ones(1, 1, 1, dtype=torch.bool, device=bench.device),
        cameras=torch.zeros(1, len(VIEWS), 2, device=bench.device),
        complete=True,
    )


def keep_batch(bench: Bench, batch_size: int) -> Iterator[RawBatch]:
    """One batch again and again, its images on the device already."""
    items = bench.training(batch_size).items[:batch_size]
    raw = next(iter(bench.transform().stream(bench.cache, [items], 1)))
    assert isinstance(raw, RawBatch)
    images = {name: torch.as_tensor(value).to(bench.device).clone() for name, value in raw.images.items()}
    kept = dataclasses.replace(raw, images=images)
    while True:
        yield kept


def time_step(bench: Bench, model: Facet, recipe: Recipe, num_steps: int, batches: Iterator[RawBatch]) -> float:
    """Seconds of a step: augmentation, forward, backward, optimiser, exactly as in the loop."""
    transform, optimizer, criterion = bench.transform(), build_optimizer(model, recipe), CrossEntropy()
    broken = torch.zeros((), device=bench.device)

    def step() -> None:
        raw = next(batches)
        batch = transform.prepare(raw, draw_parameters(0, 0, [item.index for item in raw.items]))
        target = copy_small(find_task(recipe.task).label_items(raw.items, recipe.classes), bench.device)
        train_step(model, optimizer, batch, target, criterion, broken, accumulate=recipe.gradient_accumulation)

    time_calls(step, 3, bench.device)
    if bench.device.type == "cuda":
        count_host_waits(step)
    return time_calls(step, num_steps, bench.device)


def count_host_waits(step: Callable[[], None]) -> None:
    """Says where a step makes the host wait for the GPU: it should nowhere."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for place in sorted({f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)}):
        print(f"the host waits for the GPU at {place}")


def measure_rendering(bench: Bench, batch_size: int) -> float:
    """Seconds of a step that waits for its images to be rendered, by as many processes as there are cores."""
    items = bench.training(batch_size).items[: batch_size * (RENDERED_STEPS + 4)]
    batches = [items[i : i + batch_size] for i in range(0, len(items), batch_size)]
    model, recipe = bench.build(batch_size)
    if bench.device.type == "cuda":
        model.tower.compile(dynamic=False)
    return time_step(bench, model, recipe, RENDERED_STEPS, render_batches(DATASET, bench.scans, bench.cache, batches))


def print_table(rows: Sequence[Row], best: Row, rendered: float) -> None:
    print(
        "| batch | step on a kept batch ms | step of a training ms | ratio | waiting | samples/s | MFU | memory GiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        mark = "**" if row is best else ""
        print(
            f"| {mark}{row.batch_size}{mark} | {row.kept_seconds * 1e3:.1f} | {row.seconds * 1e3:.1f} "
            f"| {row.seconds / row.kept_seconds:.3f} | {row.wait_share:.1%} | {row.batch_size / row.seconds:.0f} "
            f"| {row.mfu:.1%} | {row.memory_bytes / 2**30:.1f} |"
        )
    print(f"\ntargets: ratio ≤ {STEP_RATIO}, waiting < {WAIT_SHARE:.0%}, MFU ≥ {MFU:.0%}")
    faster = rendered / best.seconds
    print(f"rendering in the loop, {os.cpu_count()} processes, batch {best.batch_size}: {rendered * 1e3:.0f} ms a step, "
          f"{best.batch_size / rendered:.0f} samples/s: from the cache {faster:.1f} × as fast")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
