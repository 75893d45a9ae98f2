"""Images kept in memory: the same batches and the same training as from files, and never more than fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeCache
from safetensors.numpy import load_file

import train.data.preload
from shared.cache import Cache, open_cache
from shared.errors import FacetError, run_command_line
from shared.runs import WEIGHTS
from train.__main__ import main
from train.data.items import add_references, find_items
from train.data.order import epoch_order, split_batches
from train.data.pixels import to_device
from train.data.preload import preload_images
from train.data.stream import ImageSource, stream_batches
from train.tasks.item import Item

MODALITIES = ("texture", "normal", "depth")
CPU = torch.device("cpu")


def make_items(tiny_cache: MakeCache) -> tuple[Cache, list[Item]]:
    """Sequences of nine frames with a reference each; some frames without texture. The last subject's are left out."""
    options = {"num_frames": 9, "scans_per_class": 1, "modalities": MODALITIES, "without_texture": range(0, 108, 7)}
    cache = open_cache(tiny_cache(**options))
    return cache, add_references(cache, find_items(cache, MODALITIES), MODALITIES, "onset")[:9]


def test_batches_are_those_of_the_files(tiny_cache: MakeCache) -> None:
    cache, items = make_items(tiny_cache)
    source = preload_images(cache, items, MODALITIES, "ram", CPU)
    assert source is not None
    num_absent = 0
    for epoch in range(2):
        batches = [[items[i] for i in batch] for batch in split_batches(epoch_order(len(items), 0, epoch), 4)]
        expected = stream_batches(cache, batches, MODALITIES, 3, (0, epoch), True)
        found = stream_batches(cache, batches, MODALITIES, 3, (0, epoch), True, source=source)
        for a, b in zip(found, expected, strict=True):
            assert (a.items, a.present.tolist()) == (b.items, b.present.tolist())
            num_absent += int((~a.present).sum())
            for modality in MODALITIES:
                assert torch.equal(to_device(a.images[modality], CPU), to_device(b.images[modality], CPU))
    assert num_absent


def test_only_what_the_items_need_is_loaded(tiny_cache: MakeCache) -> None:
    cache, items = make_items(tiny_cache)
    source = preload_images(cache, items[:2], ("texture",), "ram", CPU)
    assert source is not None
    rows = [row for row in range(18) if row % 7]
    assert len(source._tables["texture"]) == len(rows)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="outside the items"):
        source.start("texture", np.array([30]), 0)


def test_a_run_is_the_same_bit_for_bit(tiny_cache: MakeCache, tmp_path: Path) -> None:
    path = tiny_cache(num_subjects=4, scans_per_class=1, num_frames=3, without_texture=(4,))
    for kind in ("none", "ram"):
        arguments = ["fit", "--cache", path, "--out", tmp_path / kind, "--folds", 2, "--epochs", 2, "--batch-size", 4]
        arguments += ["--frames", 2, "--device", "cpu", "--modalities", "texture,normal", "--preload", kind]
        assert run_command_line(lambda given=arguments: main([str(a) for a in given])) == 0  # type: ignore[misc]
    expected, found = (load_file(tmp_path / kind / WEIGHTS) for kind in ("none", "ram"))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert (tmp_path / "ram" / "predictions.csv").read_bytes() == (tmp_path / "none" / "predictions.csv").read_bytes()


def test_images_that_do_not_fit_are_refused(tiny_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, items = make_items(tiny_cache)
    num_bytes = 81 * 3 * 32 * 32 * 3  # nine frames of nine sequences, three views

    def load(where: str, free: int) -> ImageSource | None:
        monkeypatch.setattr(train.data.preload, "free_ram_bytes", lambda: free)
        return preload_images(cache, items, ("normal",), where, CPU)

    assert load("none", 1 << 40) is None
    assert load("ram", num_bytes) is not None
    with pytest.raises(FacetError, match="--preload ram: the run's images take"):
        load("ram", num_bytes - 1)
    with pytest.raises(FacetError, match="--preload gpu: the run is on cpu"):
        load("gpu", 1 << 40)
