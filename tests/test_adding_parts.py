"""The worked examples of train/README.md: a loss and a fusion are one file and one line each."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from recipes import make_recipe
from test_facet import make_batch, make_model

from train import parts
from train.tasks.criterion import CrossEntropy
from train.training.optimizer import build_optimizer
from train.training.step import train_step

README = Path(__file__).resolve().parents[1] / "train" / "README.md"
LABELS = torch.tensor([0, 2, 1, 2])


def test_the_examples_train_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text(encoding="utf-8").partition("## Adding a loss or a fusion")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n# (\S+)(?: in \S+)?\n(.*?)```", section, re.DOTALL)
    assert [name for name, _ in blocks] == [
        "train/losses/uniformity.py", "LOSSES", "train/model/nearest_fusion.py", "FUSIONS",
    ]  # fmt: skip
    for name, text in blocks:
        if name.endswith(".py"):
            file = tmp_path / Path(name).name
            file.write_text(text, encoding="utf-8")
            module_name = name.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(module_name, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, module_name, module)
            spec.loader.exec_module(module)
        else:
            ((part_name, part),) = eval("{" + text + "}", {"Part": parts.Part}).items()
            monkeypatch.setitem(getattr(parts, name), part_name, part)
    weights = make_recipe(extra_losses=("uniformity=0.5",)).loss_weights
    model = make_model(fusion="nearest", losses=weights).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, make_recipe(lr=1e-3, tower_lr=1e-3))
    result = train_step(
        model, optimizer, make_batch(missing=True), LABELS, CrossEntropy(), torch.zeros(()), accumulate=2
    )
    assert set(result.terms) == {"ce", "con", "vt", "uniformity", "loss", "grad_norm"}
    assert result.terms["uniformity"].isfinite() and result.terms["uniformity"] < 0
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
