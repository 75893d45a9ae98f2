"""On a GPU: what is computed there is what the CPU computes, whole and in time. Most of it is skipped where there is none."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, VIEWS, MakeCache
from test_build_embeddings import read_probabilities
from test_facet import make_batch, make_model
from test_train_cli import call
from tiny_training import RECIPE, TOWER, make_training
from tiny_training import make_model as make_facet
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from train_process import launch

from shared.attention_file import ATTENTION_FILE, read_attention
from shared.cache import Cache, open_cache
from shared.runs import LOG_JSONL
from train.data.augment import AugmentParameters, _noise_table, augment, draw_parameters
from train.data.batch_transform import BatchTransform
from train.data.items import add_references, find_items
from train.data.order import epoch_order, split_batches
from train.data.pixels import to_device
from train.data.preload import preload_images
from train.data.stream import RawBatch
from train.data.transfer import copy_small
from train.model.batch import Batch
from train.options import Recipe
from train.tasks.batch_slice import WHOLE_BATCH
from train.tasks.criterion import BinaryCrossEntropy, CrossEntropy
from train.tasks.item import Item
from train.training.checkpoint import read_checkpoint
from train.training.ema import Ema
from train.training.loop import Stopped, train
from train.training.optimizer import build_optimizer
from train.training.step import PartLoss, train_step

MODALITIES = ("texture", "normal", "depth")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture
def forget_constants() -> Iterator[None]:
    yield
    _noise_table.cache_clear()


@pytest.mark.usefixtures("forget_constants")
@pytest.mark.parametrize("options", [{}, {"num_frames": 3, "fusion": "mean"}, {"multilabel": True, "head": "cosine"}])
def test_a_step_mixes_no_devices_and_asks_for_no_value(options: dict[str, Any]) -> None:
    """With tensors without storage that say they are on a GPU: PyTorch refuses operations on two devices, and those whose
    value the host would have to wait for."""
    model, batch = make_model(**options), make_batch(t=options.get("num_frames", 1))
    several = "multilabel" in options
    labels = torch.zeros(4, 3, dtype=torch.int8) if several else torch.zeros(4, dtype=torch.int64)
    with FakeTensorMode():
        try:
            torch.zeros(1).to(GPU)
        except RuntimeError as error:
            pytest.skip(f"this PyTorch asks a driver even for tensors without storage: {error}")

        def move(value: torch.Tensor) -> torch.Tensor:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)

        part_loss = PartLoss(model)
        weights = {name: move(value) for name, value in (*part_loss.named_parameters(), *part_loss.named_buffers())}
        inputs = {name: move(value) for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
        changes = AugmentParameters(move(draw_parameters(0, 0, range(4)).table))
        inputs["images"] = augment(inputs["images"], changes, colour=[0])
        criterion = (BinaryCrossEntropy if several else CrossEntropy)(move(torch.ones(3)))
        moved = replace(batch, **inputs)  # type: ignore[arg-type]
        terms, logits, face = functional_call(part_loss, weights, (moved, move(labels), criterion, WHOLE_BATCH))
        assert {value.device.type for value in (*terms.values(), logits, face)} == {"cuda"}


@pytest.mark.parametrize("signalled", [True, False])
def test_a_signal_that_ends_the_compiler_too_costs_no_step(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalled: bool
) -> None:
    """A job's processes are told to end all at once: those that compile are gone when the training asks for their work."""

    def fail(model: Any, optimizer: torch.optim.Optimizer, *rest: Any, **options: Any) -> Any:
        if any(state["step"] == 3 for state in optimizer.state.values()):
            if signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("Attempting to use a closed pool")
        return train_step(model, optimizer, *rest, **options)

    cache = open_cache(tiny_cache(num_subjects=2))
    training, transform = make_training(cache), BatchTransform(RECIPE.modalities, VIEWS, TOWER, CPU)
    monkeypatch.setattr("train.training.loop.train_step", fail)
    with pytest.raises(Stopped if signalled else RuntimeError):
        train(tmp_path, make_facet(), cache, training, transform, RECIPE, checkpoint_every=100)
    checkpoint = read_checkpoint(tmp_path)
    assert (checkpoint.step if checkpoint else None) == (3 if signalled else None)


def prepare_all(cache: Cache, batches: list[list[Item]], device: torch.device, **options: Any) -> Iterator[Batch]:
    transform = BatchTransform(MODALITIES, VIEWS, TOWER, device, **options)
    for raw in transform.stream(cache, batches, 3, jitter=(0, 0), references=True):
        yield transform.prepare(raw, draw_parameters(0, 0, [item.index for item in raw.items]))


def make_batches(tiny_cache: MakeCache, num_subjects: int = 4) -> tuple[Cache, list[list[Item]]]:
    options = {"num_frames": 5, "scans_per_class": 1, "modalities": MODALITIES, "without_texture": range(0, 60, 7)}
    cache = open_cache(tiny_cache(num_subjects=num_subjects, **options))
    items = add_references(cache, find_items(cache, MODALITIES), MODALITIES, "onset")
    return cache, [[items[i] for i in batch] for batch in split_batches(epoch_order(len(items), 0, 0), 4)]


@on_gpu
def test_images_are_prepared_as_on_a_cpu(tiny_cache: MakeCache) -> None:
    cache, batches = make_batches(tiny_cache)
    for found, wanted in zip(prepare_all(cache, batches, GPU), prepare_all(cache, batches, CPU), strict=True):
        assert found.images is not None
        assert wanted.images is not None
        torch.testing.assert_close(found.images.cpu(), wanted.images, atol=2e-3, rtol=1e-3)
        assert torch.equal(found.present.cpu(), wanted.present)
        torch.testing.assert_close(found.cameras.cpu(), wanted.cameras)


@on_gpu
@pytest.mark.parametrize("kind", ["none", "ram", "gpu"])
def test_a_slow_device_gets_every_byte(tiny_cache: MakeCache, kind: str) -> None:
    """Memory that batches are copied from is written again while the device still works on those before."""
    cache, batches = make_batches(tiny_cache, num_subjects=8)
    items = [item for batch in batches for item in batch]
    source = preload_images(cache, items, MODALITIES, kind, GPU)
    late, busy = [], torch.randn(4096, 4096, device=GPU)
    for _ in range(3):
        for raw in BatchTransform(MODALITIES, VIEWS, TOWER, GPU, source=source).stream(
            cache, batches, 3, references=True
        ):
            for _ in range(20):
                busy = torch.mm(busy, busy).clamp(-1, 1)  # the host is ahead by far
            assert isinstance(raw, RawBatch)
            late.append({name: to_device(images, GPU).clone() for name, images in raw.images.items()})
    for epoch in range(3):
        wanted = BatchTransform(MODALITIES, VIEWS, TOWER, CPU).stream(cache, batches, 3, references=True)
        for place, raw in enumerate(wanted):
            assert isinstance(raw, RawBatch)
            for name, images in raw.images.items():
                assert torch.equal(late[epoch * len(batches) + place][name].cpu(), to_device(images, CPU)), (
                    epoch,
                    place,
                )


@on_gpu
def test_the_host_never_waits_for_a_step(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    recipe = replace(RECIPE, gradient_accumulation=2)
    model, transform = make_facet().to(GPU).train(), BatchTransform(RECIPE.modalities, VIEWS, TOWER, GPU)
    optimizer, ema, broken = build_optimizer(model, recipe), Ema(model, 0.9), torch.zeros((), device=GPU)
    items = find_items(cache, RECIPE.modalities)[:6]
    labels = make_training(cache).labels[:6]
    for step in range(4):
        (raw,) = transform.stream(cache, [items], 1)
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            batch = transform.prepare(raw, draw_parameters(0, step, range(6)))
            train_step(
                model,
                optimizer,
                batch,
                copy_small(labels, GPU),
                CrossEntropy(),
                broken,
                accumulate=recipe.gradient_accumulation,
            )
            ema.update(model, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not broken


def run(folder: Path, cache: Cache, device: torch.device, recipe: Recipe = RECIPE) -> list[dict[str, float]]:
    """The log of a training in float32."""
    folder.mkdir()
    transform = BatchTransform(recipe.modalities, VIEWS, TOWER, device)
    train(folder, make_facet(recipe).to(device), cache, make_training(cache), transform, recipe, checkpoint_every=100)
    return [json.loads(line) for line in (folder / LOG_JSONL).read_text().splitlines()]


@on_gpu
@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation": 2, "gradient_checkpointing": True}, {"tune": "lora-2", "ema": 0.9}]
)
def test_a_training_goes_as_on_a_cpu(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cache, recipe = open_cache(tiny_cache(num_subjects=3)), replace(RECIPE, **options)
    logs = [run(tmp_path / device.type, cache, device, recipe) for device in (CPU, GPU)]
    for mine, theirs in zip(*logs, strict=True):
        for name in ("ce", "con", "vt", "loss", "grad_norm", "scale"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-2, abs=1e-3), name
        assert theirs["memory_bytes"] > 0
        assert 0 <= theirs["wait_share"] < 1


@on_gpu
def test_fit_in_bfloat16_learns_goes_on_and_predicts_alike_everywhere(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, out = tiny_cache(num_subjects=6), tmp_path / "run"
    command = [
        "fit",
        "--cache",
        cache,
        "--out",
        out,
        "--folds",
        3,
        "--batch-size",
        8,
        "--lr",
        3e-3,
        "--augment",
        "none",
    ]
    assert call(*command, "--epochs", 30, "--device", "cuda") == 0
    assert json.loads((out / "metrics.json").read_text())["accuracy"] > 0.9
    found = read_attention(out / ATTENTION_FILE)
    for weights in (found.frame_weights, found.view_weights):
        np.testing.assert_allclose(weights.astype(float).sum(-1), 1, atol=2e-3)
    for device in ("cuda", "cpu"):
        assert call("predict", out, "--cache", cache, "--device", device, "--out", tmp_path / f"{device}.csv") == 0
    there, here = (read_probabilities(tmp_path / f"{device}.csv") for device in ("cuda", "cpu"))
    assert set(there) == set(here)
    for name, probabilities in there.items():
        assert len(probabilities) == len(CLASSES)
        np.testing.assert_allclose(probabilities, here[name], atol=0.05)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two CUDA devices here")
def test_two_gpus_train_as_one_does(tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, whose sums depend on the size of a slice: the first steps to a hundredth."""
    cache = tiny_cache(num_subjects=5)
    command = ["fit", "--cache", cache, "--test-subjects", "S0,S1", "--batch-size", 6, "--epochs", 4, "--out"]
    monkeypatch.setattr("train.training.loop.LOG_EVERY", 1)
    assert call(*command, tmp_path / "1", "--device", "cuda:0") == 0
    launch([*command, tmp_path / "2"], 2, tmp_path)
    wanted, found = (
        [json.loads(line) for line in (tmp_path / name / LOG_JSONL).read_text().splitlines()] for name in ("1", "2")
    )
    assert len(wanted) == len(found) == 12
    for a, b in zip(wanted[:6], found[:6], strict=True):
        for name in ("loss", "ce", "con", "vt"):
            assert b[name] == pytest.approx(a[name], rel=2e-2, abs=1e-3), (name, a["step"])
