"""Checkpoints: whole or not there, refused when damaged, unable to run code."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from shared.errors import FacetError
from shared.runs import WEIGHTS
from train.model.weights import load_weights, write_weights
from train.training.checkpoint import (
    CHECKPOINT,
    find_checkpoints,
    read_checkpoint,
    write_checkpoint,
)


def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_round_trip(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None
    model, optimizer = make(0)
    write_checkpoint(tmp_path, 17, model, optimizer)
    draws = torch.rand(3)
    other, other_optimizer = make(1)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 17
    other.load_state_dict(found.model)
    other_optimizer.load_state_dict(found.optimizer)
    torch.set_rng_state(found.random_state)
    assert torch.equal(torch.rand(3), draws)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert other_optimizer.state_dict()["state"][0]["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]  # nothing temporary is left


def test_damage_is_told(tmp_path: Path) -> None:
    model, optimizer = make(0)
    write_checkpoint(tmp_path, 1, model, optimizer)
    write_weights(tmp_path, model)
    for name, read in (
        (CHECKPOINT, lambda: read_checkpoint(tmp_path)),
        (WEIGHTS, lambda: load_weights(tmp_path, model)),
    ):
        whole = (tmp_path / name).read_bytes()
        for data in (b"", b"garbage", whole[: len(whole) // 2]):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(FacetError, match=f"{name}: damaged"):
                read()
    torch.save({"step": 1}, tmp_path / CHECKPOINT)
    with pytest.raises(FacetError, match="damaged"):
        read_checkpoint(tmp_path)


def damage(path: Path) -> None:
    """Flips one bit of a stored weight."""
    data = bytearray(path.read_bytes())
    data[data.index(WEIGHT.numpy().tobytes()) + 1] ^= 1
    path.unlink()  # it may have a second name
    path.write_bytes(data)


WEIGHT = torch.arange(1.0, 13.0)


def test_the_last_ones_are_kept_and_an_earlier_one_used_where_the_last_is_damaged(tmp_path: Path) -> None:
    model, optimizer = make(0)
    model[0].weight.data.copy_(WEIGHT.view(4, 3))  # type: ignore[index, union-attr]

    def write(step: int, num_kept: int) -> list[str]:
        write_checkpoint(tmp_path, step, model, optimizer, num_kept=num_kept)
        return [path.name for path in find_checkpoints(tmp_path)]

    def read() -> tuple[int, list[str]]:
        found = read_checkpoint(tmp_path)
        assert found is not None
        torch.testing.assert_close(found.model["0.weight"].flatten(), WEIGHT)
        return found.step, [text.partition(": damaged (")[0] for text in found.damaged]

    assert write(5, 3) == [CHECKPOINT]
    assert write(10, 3) == [CHECKPOINT, "checkpoint-5.pt"]
    assert write(15, 3) == [CHECKPOINT, "checkpoint-10.pt", "checkpoint-5.pt"]
    assert write(20, 3) == [CHECKPOINT, "checkpoint-15.pt", "checkpoint-10.pt"]
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, "checkpoint-15.pt", "checkpoint-10.pt"}
    assert read() == (20, [])
    damage(tmp_path / CHECKPOINT)
    assert read() == (15, [str(tmp_path / CHECKPOINT)])
    damage(tmp_path / "checkpoint-15.pt")
    assert read() == (10, [str(tmp_path / name) for name in (CHECKPOINT, "checkpoint-15.pt")])
    assert write(12, 3) == [CHECKPOINT, "checkpoint-10.pt"]  # what was later is of steps that are taken again
    assert read() == (12, [])
    (tmp_path / CHECKPOINT).unlink()
    assert read() == (10, [])
    damage(tmp_path / "checkpoint-10.pt")
    with pytest.raises(FacetError, match=r"checkpoint-10\.pt: damaged \(.* checksum.*delete it"):
        read()
    assert write(15, 1) == [CHECKPOINT]
    (tmp_path / "checkpoint-mine.pt").write_bytes(b"")
    assert write(20, 1) == [CHECKPOINT]
    assert (tmp_path / "checkpoint-mine.pt").exists()


def test_no_code_is_run(tmp_path: Path) -> None:
    torch.save({"step": 1, "model": Path}, tmp_path / CHECKPOINT)
    with pytest.raises(FacetError, match="damaged"):
        read_checkpoint(tmp_path)


def test_weights_of_another_model_and_missing_weights(tmp_path: Path) -> None:
    model, _ = make(0)
    with pytest.raises(FacetError, match="the training is not finished"):
        load_weights(tmp_path, model)
    write_weights(tmp_path, model)
    with pytest.raises(FacetError, match="of another model"):
        load_weights(tmp_path, nn.Linear(2, 2))
    other, _ = make(1)
    load_weights(tmp_path, other)
    assert torch.equal(other.state_dict()["0.weight"], model.state_dict()["0.weight"])


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on file sizes")
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """A limit on the file size makes the write fail half-way, as a full disk does."""
    model, optimizer = make(0)
    write_checkpoint(tmp_path, 1, model, optimizer)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        for write in (
            lambda: write_checkpoint(tmp_path, 2, model, optimizer),
            lambda: write_weights(tmp_path, nn.Linear(99, 99)),
        ):
            with pytest.raises((FacetError, OSError)) as caught:
                write()
            assert str(tmp_path) in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
