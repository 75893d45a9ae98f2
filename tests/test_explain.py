"""Explanations: a map is dark where the model looks and nowhere else; files agree with each other and with the predictions."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import CLASSES, MakeCache
from PIL import Image
from test_facet import SIZE, make_batch
from test_train_cli import QUICK, call, fails

from shared.attention_file import read_attention
from shared.runs import Prediction, Predictions
from train.inference.explain import choose_samples
from train.inference.occlusion import GRID, occlude, place_squares, spread_drops
from train.model.batch import Batch

REGION = (slice(3, 6), slice(20, 22))  # rows and columns of view 1 that the model below depends on


def look_at_region(batch: Batch) -> torch.Tensor:
    """A model that can be read: the mean of one region of one view, over modalities and frames."""
    assert batch.images is not None
    return batch.images[:, :, :, 1, :, *REGION].mean((1, 2, 3, 4, 5))


@pytest.mark.parametrize(("frames", "batch_size"), [(1, 16), (2, 5)])
def test_a_drop_is_where_the_model_looks(frames: int, batch_size: int) -> None:
    batch = make_batch(b=1, t=frames)
    assert batch.images is not None
    batch.images.fill_(-7.0)
    batch.images[:, :, :, 1, :, *REGION] = 0.5
    updates: list[int] = []
    drops = occlude(look_at_region, batch, batch_size, updates.append)
    assert drops.shape == (3, GRID, GRID) and sum(updates) == drops.size
    square, starts = place_squares(SIZE)
    assert starts[0] == 0 and starts[-1] + square == SIZE  # all of the image is hidden once

    def covered(start: int, region: slice) -> float:
        inside = set(range(start, start + square)) & set(range(region.start, region.stop))
        return len(inside) / (region.stop - region.start)

    wanted = [[0.5 * covered(top, REGION[0]) * covered(left, REGION[1]) for left in starts] for top in starts]
    np.testing.assert_allclose(drops[1], wanted, atol=1e-6)
    assert not drops[[0, 2]].any()
    row, column = np.unravel_index(spread_drops(drops[1], SIZE).argmax(), (SIZE, SIZE))
    assert abs(row - 4) < square and abs(column - 21) < square


def row(name: str, label: str, *probabilities: float) -> Prediction:
    predicted = CLASSES[int(np.argmax(probabilities))]
    return Prediction(name, "S0", (label,) if label else (), (predicted,), probabilities)


def test_wrong_samples_come_first() -> None:
    rows = (
        row("right, certain", "anger", 0.9, 0.1, 0.0),
        row("wrong", "surprise", 0.6, 0.2, 0.2),
        row("unlabelled", "", 0.5, 0.3, 0.2),
        row("wrong, certain", "happiness", 0.0, 0.1, 0.9),
        row("another word", "boredom", 0.1, 0.8, 0.1),
        row("7", "anger", 0.99, 0.01, 0.0),
    )
    table = Predictions(CLASSES, False, rows)
    assert choose_samples(table, "12") == [3, 1, 2, 4, 0, 5]
    assert choose_samples(table, "2") == [3, 1]
    assert choose_samples(table, "7") == [5]  # a sample of this name
    assert choose_samples(table, "wrong,unlabelled") == [1, 2]
    assert choose_samples(table, "right, certain") == [0]
    several = (
        Prediction("right", "S0", ("anger",), ("anger", "surprise"), (0.9, 0.2, 0.6), ("surprise",)),
        Prediction("missed", "S0", ("anger",), (), (0.4, 0.2, 0.1)),
        Prediction("rightly none", "S0", (), (), (0.3, 0.2, 0.1)),
    )
    assert choose_samples(Predictions(CLASSES, True, several), "3") == [1, 2, 0]


def test_files_agree_with_the_predictions(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(num_subjects=3, scans_per_class=1, without_texture=(1,)), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK, "--epochs", 1, "--tune", "frozen") == 0
    capsys.readouterr()
    assert call("predict", run, "--cache", cache, "--explain", 3) == 0
    folder = run / "explained-cache"
    printed = capsys.readouterr().out
    assert f"3 samples explained: {folder}" in printed and "drawn by the tests; free" in printed
    with (run / "predictions-cache.csv").open(newline="") as file:
        predictions = {line["sample_id"]: line for line in csv.DictReader(file)}
    attention = read_attention(run / "attention-cache.safetensors")
    with h5py.File(folder / "explanations.h5") as file:
        names = [name.decode() for name in file["sample_id"]]
        wrong = [predictions[name]["label"] != predictions[name]["predicted"] for name in names]
        assert wrong == sorted(wrong, reverse=True)
        assert file["drops"].shape == (3, 3, GRID, GRID) and np.isfinite(file["drops"]).all()
        assert file["prompts"].shape[0] == len(CLASSES) and file.attrs["image_px"] == 32
        for number, name in enumerate(names):
            line = predictions[name]
            probabilities = [float(line[f"p_{one}"]) for one in CLASSES]
            np.testing.assert_allclose(file["probabilities"][number], probabilities, rtol=1e-6)
            assert file["explained"][number].decode() == line["predicted"]
            place = attention.names.index(name)
            for array in ("view_weights", "class_attention", "prompt_cosines"):
                np.testing.assert_allclose(file[array][number], getattr(attention, array)[place], atol=2e-3)
    pictures = sorted(folder.glob("*.png"))
    assert [path.name for path in pictures] == [
        f"{n:03d}-{re.sub('/', '_', name)}.png" for n, name in enumerate(names, 1)
    ]
    with Image.open(pictures[0]) as image:
        assert image.format == "PNG" and min(image.size) > 300

    out = tmp_path / "p.csv"
    assert call("predict", run, "--cache", cache, "--out", out, "--explain", "S0/happiness0") == 0
    assert [path.name for path in (tmp_path / "p-explained").glob("*.png")] == ["001-S0_happiness0.png"]
    assert call("predict", run, "--cache", cache, "--explain", "S1/anger0,S0/anger0", "--format", "pdf") == 0
    assert sorted(path.suffix for path in folder.glob("0*")) == [".pdf", ".pdf"]  # those of the earlier choice are gone
    assert "--format: is for the pictures of --explain" in fails(
        capsys, "predict", run, "--cache", cache, "--format", "svg"
    )
    assert "S9/anger0: no such sample" in fails(capsys, "predict", run, "--cache", cache, "--explain", "S9/anger0")
    assert "--explain 0" in fails(capsys, "predict", run, "--cache", cache, "--explain", 0)
