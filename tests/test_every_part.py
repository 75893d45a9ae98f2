"""Every fusion, head and tower by the command line: trained, tested, recorded, exported, predicted, reported, resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeCache
from test_build_embeddings import read_probabilities
from test_train_cli import QUICK, call

from shared.attention_file import read_attention
from shared.cache import open_cache
from train.model.factory import load_run
from train.parts import FUSIONS, HEADS

# Each fusion, each head and each other kind of part at least once: options of fit, and of the cache.
KINDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "max": (["--fusion", "max", "--head", "linear"], {}),
    "concat": (["--fusion", "concat", "--head", "cosine"], {}),
    "late": (["--fusion", "late", "--head", "mtgf"], {}),
    "mean": (["--fusion", "mean", "--head", "linear"], {"units": "targets"}),
    "mit": (["--towers", "view", "--fusion", "late", "--head", "linear"], {"units": "targets"}),
    "learned": (["--class-vectors", "learned", "--extra-losses", "margin=0.1,cross-correlation=0.1"], {}),
    "sequences": (
        ["--fusion", "late", "--reference", "onset", "--frames", "3", "--class-vectors", "residual"],
        {"num_frames": 5, "scans_per_class": 1},
    ),
    "nothing trained": (["--epochs", "0", "--fusion", "mean", "--head", "cosine"], {}),
}


TRACED = ("max", "concat", "mit", "sequences")


def test_each_fusion_and_head_is_tried() -> None:
    words = {word for options, _ in KINDS.values() for word in options} | {"cvsa"}  # the default
    assert {*FUSIONS, *HEADS} <= words


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_cache_to_the_report(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    options, about = KINDS[kind]
    path, run, out = tiny_cache(**about), tmp_path / "run", tmp_path / "exported"
    task = ["--task", "targets"] if "units" in about else []
    assert call("fit", "--cache", path, "--out", run, *QUICK, *task, *options) == 0
    tested = (run / "predictions.csv").read_bytes()
    assert call("evaluate", run) == 0
    assert (run / "predictions.csv").read_bytes() == tested

    config, model = load_run(run, torch.device("cpu"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["num_parameters"] == sum(p.numel() for p in model.parameters())
    assert sum(metrics["view_weights"].values()) == pytest.approx(1, abs=1e-3)

    attention = read_attention(run / "attention.safetensors")  # weights where something attends, and only there
    recipe = config.recipe
    assert (attention.view_attention is not None) == (recipe.fusion == "cvsa")
    assert (attention.class_attention is not None) == (recipe.head == "mtgf" and recipe.fusion != "late")
    assert bool(attention.prompts) == model.has_text_scores
    assert model.has_text_scores == (kind in ("concat", "nothing trained"))

    program = ["--program"] if kind in TRACED else []
    assert call("export", run, "--out", out, *program) == 0
    assert call("predict", out, "--cache", path, "--out", tmp_path / "wanted.csv") == 0
    if program:
        check_program(out, path, recipe.modalities, read_probabilities(tmp_path / "wanted.csv"))
    if recipe.towers == "view":  # what README.md says of the towers is so
        code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
        monkeypatch.chdir(out)
        exec(code, {})

    assert call("report", run, "--out", tmp_path / "report.html") == 0
    assert "run" in (tmp_path / "report.html").read_text()


def check_program(out: Path, path: Path, modalities: Sequence[str], wanted: dict[str, list[float]]) -> None:
    """The traced model gives what `predict` wrote."""
    cache = open_cache(path)
    rows = {sample.sample_id: [row] for row, sample in enumerate(cache.samples)}
    if cache.sequences:
        rows = {s.sequence: [s.first_row + k for k in (0, 0, 2, 4)] for s in cache.sequences}
    names = list(rows)
    images = {m: torch.from_numpy(np.stack([cache.arrays.read(m, rows[n]) for n in names])) for m in modalities}
    program = torch.export.load(str(out / "model.pt2")).module()
    found = program(images).detach().numpy()
    for name, row in zip(names, found, strict=True):
        np.testing.assert_allclose(row, wanted[name], atol=2e-5)
