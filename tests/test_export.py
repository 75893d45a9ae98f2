"""An exported model: alone in its folder, opened by safetensors and open_clip alone, and predicting what its run does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from conftest import MakeCache
from next_commands import next_commands
from test_train_cli import QUICK, call, fails

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
    assert next_commands(capsys.readouterr().out) == ["train predict"]
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

    code = re.search(r"```python\n(.*?)```", (elsewhere / "README.md").read_text(), re.DOTALL)
    assert code is not None
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
