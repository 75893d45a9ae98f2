"""An exported model: alone in its folder, opened by safetensors and open_clip alone, and predicting what its run does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors
import torch
from conftest import MakeCache
from huggingface_hub import ModelCard
from next_commands import next_commands
from test_image_tower import TOWERS, save_clip
from test_train_cli import QUICK, call, fails, save_pretrained
from torch.nn.functional import normalize

from train.inference.open_clip_model import fold_projection
from train.model.factory import load_run


@pytest.mark.parametrize("kind", ["classes", "targets"])
def test_an_exported_model_stands_alone(
    kind: str,
    tiny_cache: MakeCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache, run, out = tiny_cache(units=kind if kind == "targets" else ""), tmp_path / "run", tmp_path / "exported"
    options = ["--task", "targets", "--epochs", 1] if kind == "targets" else ["--tune", "lora-2"]
    assert call("fit", "--cache", cache, "--out", run, *QUICK, *options) == 0
    config, model = load_run(run, torch.device("cpu"))
    capsys.readouterr()
    assert call("export", run, "--out", out) == 0
    printed = capsys.readouterr().out
    assert next_commands(printed) == ["train predict"]
    assert "no model for open_clip in the folder: the image tower, or the prompts, had random weights" in printed
    assert call("predict", run, "--cache", cache, "--out", tmp_path / "before.csv") == 0
    tested = (run / "predictions.csv").read_bytes()
    names = {"model.safetensors", "config.json", "split.json", "README.md", "hashes.json"}
    assert {path.name for path in out.iterdir()} == names | ({"thresholds.json"} if kind == "targets" else set())

    elsewhere = tmp_path / "elsewhere"
    shutil.move(out, elsewhere)
    shutil.rmtree(run)
    (cache / "text").rename(tmp_path / "no-prompts")
    for path in elsewhere.glob("*.*s*"):  # nothing tells where it was made
        assert str(tmp_path).encode() not in path.read_bytes(), path

    with safetensors.safe_open(str(elsewhere / "model.safetensors"), "np") as file:
        assert file.metadata() == {"format": "pt"}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        bias = file.get_tensor("class_bias") if kind == "targets" else None
        assert (file.get_tensor("text_mean") == model.text_mean.numpy()).all()
    assert shapes == {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["tower.conv1.weight"] == (32, 3, 8, 8)
    assert bias is None or bias.shape == (3,)

    assert call("predict", elsewhere, "--cache", cache, "--out", tmp_path / "after.csv") == 0
    assert (tmp_path / "after.csv").read_bytes() == (tmp_path / "before.csv").read_bytes()
    assert "give --cache" in fails(capsys, "evaluate", elsewhere)
    assert call("evaluate", elsewhere, "--cache", cache) == 0
    assert (elsewhere / "predictions.csv").read_bytes() == tested

    card = (elsewhere / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None and "._" not in code[1] and "**RANDOM WEIGHTS" in card
    monkeypatch.chdir(elsewhere)
    found: dict[str, Any] = {}
    exec(code[1], found)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found["tower"](images), model.eval().tower(images))
    assert json.loads(Path("config.json").read_text())["recipe"]["classes"] == list(config.recipe.classes)


def test_what_is_no_finished_run_or_no_new_folder_is_refused(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert call("fit", "--cache", tiny_cache(), "--out", run, *QUICK, "--epochs", 1) == 0
    assert "is not empty" in fails(capsys, "export", run, "--out", run)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    assert "is not empty" in fails(capsys, "export", run, "--out", mine)
    assert "is a file" in fails(capsys, "export", run, "--out", mine / "thesis.txt")
    begun = tmp_path / "begun"  # an export that was killed before its last file
    begun.mkdir()
    (begun / "model.safetensors").write_bytes(b"half")
    assert call("export", run, "--out", begun) == 0
    assert "no run here" in fails(capsys, "export", mine, "--out", tmp_path / "new")
    (run / "model.safetensors").unlink()
    assert "training is not finished" in fails(capsys, "export", run, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_is_a_model_of_open_clip_and_a_card(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run, out = tiny_cache(), tmp_path / "run", tmp_path / "exported"
    model, file = save_pretrained(tmp_path / "clip", cache)
    fit = ["fit", "--cache", cache, "--out", run, *QUICK, "--model", model, "--pretrained", file, "--lr", 1e-2]
    assert call(*fit) == 0
    capsys.readouterr()
    assert call("export", run, "--out", out) == 0
    assert "no model for open_clip" not in capsys.readouterr().out
    trained, before = load_run(run, torch.device("cpu"))[1].eval(), open_clip.create_model(model).eval()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = open_clip.get_tokenizer(model)(["a happy face"])
    with monkeypatch.context() as inside, torch.no_grad():
        inside.chdir(out)  # the code of the card, as it stands there
        code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
        assert code is not None
        found: dict[str, Any] = {}
        exec(code[1], found)
        exported = found["model"]
        tokens = normalize(trained.projection(trained.tower(images)), dim=-1)
        assert torch.allclose(exported.encode_image(images, normalize=True), tokens, atol=1e-5)
        assert not torch.allclose(exported.encode_image(images), before.encode_image(images), atol=1e-2)
        assert torch.equal(exported.encode_text(texts), before.encode_text(texts))
        assert exported.logit_scale == trained.log_scale
    metrics = json.loads((run / "metrics.json").read_text())
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "other" and card.data.library_name == "open_clip" and card.data.eval_results
    scores = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert scores["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-4)
    assert {one.dataset_name for one in card.data.eval_results} == {"tiny"}
    for heading in ("Intended use", "Limits", "Training data", "Evaluation", "Citation"):
        assert f"## {heading}\n" in card.text
    num_tested = len(json.loads((run / "split.json").read_text())["test_subjects"])
    assert f"On {num_tested} subjects of tiny not in training" in card.text and str(tmp_path) not in card.text

    shutil.rmtree(tmp_path / "clip")  # the text tower is gone: a line says so, and all else is exported
    assert call("export", run, "--out", tmp_path / "alone") == 0
    assert "note: no model for open_clip in the folder: " in capsys.readouterr().out
    assert not (tmp_path / "alone" / "open_clip_config.json").exists()


@pytest.mark.parametrize("kind", TOWERS)
def test_a_projection_is_folded_into_the_tower(tmp_path: Path, kind: str) -> None:
    visual: Any = save_clip(tmp_path, TOWERS[kind]).visual
    size = TOWERS[kind]["image_size"]
    images = torch.randn(2, 3, size, size)
    projection = torch.randn(24, 24)
    with torch.no_grad():
        wanted = visual(images) @ projection.T
        assert fold_projection(visual, projection, size)
        assert torch.allclose(visual(images), wanted, atol=1e-4 * float(wanted.abs().max()))
        visual.forward = lambda images, forward=visual.forward: forward(images) ** 2  # a tower whose end is not linear
        state = {name: value.clone() for name, value in visual.state_dict().items()}
        assert not fold_projection(visual, projection, size)
    assert all(torch.equal(value, state[name]) for name, value in visual.state_dict().items())
