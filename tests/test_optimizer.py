"""Which parameters decay, at which rate they learn, and how rates go over a training."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import open_clip
import pytest
from tiny_training import RECIPE, make_model

from shared.weights.model_config import MODEL_CONFIG
from shared.weights.models import TOWERS
from train.resolve import default_tower_rate
from train.training.optimizer import build_optimizer, describe_rates, rate_at, set_rate


def test_what_decays_and_at_which_rate() -> None:
    model = make_model(replace(RECIPE, frames=2))
    optimizer = build_optimizer(model, replace(RECIPE, lr=1.0, tower_lr=0.5, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert set(seen) == set(names.values())
    for name, (rate, decay) in seen.items():
        assert rate == (0.5 if name.startswith("tower.") else 1.0), name
        if name.endswith("bias") or "norm" in name or ".ln_" in name or name in ("log_scale", "fusion.modality"):
            assert decay == 0, name
    assert seen["projection.weight"] == (1.0, 0.1)
    assert seen["tower.conv1.weight"] == (0.5, 0.1)
    assert seen["tower.positional_embedding"] == (0.5, 0.0)


def test_what_is_frozen_is_left_out_and_rates_go_together() -> None:
    model = make_model(RECIPE)
    model.projection.requires_grad_(False)
    optimizer = build_optimizer(model, replace(RECIPE, lr=1.0, tower_lr=0.5))
    assert not {id(p) for g in optimizer.param_groups for p in g["params"]} & {id(model.projection.weight)}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.98)}  # CLIP's own
    for part in (0.25, 0.1):  # of the peak, however low it was before
        set_rate(optimizer, part)
        assert {group["lr"] for group in optimizer.param_groups} == {part, 0.5 * part}


def test_a_pretrained_tower_is_moved_a_hundred_times_more_slowly_unless_it_is_small(tmp_path: Path) -> None:
    assert default_tower_rate(0.02, "ViT-B-16", "openai") == pytest.approx(0.0002)
    assert default_tower_rate(0.02, "ViT-B-16", "/a/file.pt") == pytest.approx(0.0002)
    assert default_tower_rate(0.02, "ViT-B-16", "none") == 0.02
    assert default_tower_rate(0.02, "facet-tiny", "/a/file.pt") == 0.02
    for name, config, expected in (
        ("tiny", json.loads((TOWERS / "facet-tiny.json").read_text()), 0.02),
        ("large", open_clip.get_model_config("RN50"), 0.0002),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / MODEL_CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        assert default_tower_rate(0.02, f"local-dir:{tmp_path / name}", "weights.safetensors") == pytest.approx(
            expected
        )
    assert default_tower_rate(0.02, f"local-dir:{tmp_path / 'gone'}", "weights.safetensors") == pytest.approx(0.0002)
    told = {
        "--lr / 100 for pretrained weights, openai": replace(RECIPE, lr=0.02, tower_lr=0.0002, pretrained="openai"),
        "as --lr: it is small": replace(RECIPE, model="facet-tiny", lr=0.02, tower_lr=0.02, pretrained="synthetic-3"),
        "as --lr: its weights are random": replace(RECIPE, lr=0.02, tower_lr=0.02, pretrained="none"),
        "trained at 0.3 (--tower-lr), all else at 0.02": replace(RECIPE, lr=0.02, tower_lr=0.3, pretrained="openai"),
    }
    for line, recipe in told.items():
        assert line in describe_rates(recipe)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3
    assert rate_at(0, 1, 0.0) == 1
    assert all(0 < rate_at(s, 3, 1.0) <= 1 for s in range(3))
