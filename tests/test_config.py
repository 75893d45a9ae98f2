"""A run's configuration: what may be chosen, how it is stored, when two runs are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from recipes import make_recipe

from shared.errors import FacetError
from shared.schema import RenderSettings, View
from train.config import RunConfig, TowerConfig, read_config, write_config
from train.option_values import option_name
from train.options import Options, describe_options

CONFIG = RunConfig(
    recipe=make_recipe(model="facet-tiny", classes=("anger", "fear"), modalities=("normal",), frames=1, lr=3e-4),
    tower=TowerConfig(
        name="facet-tiny",
        pretrained="none",
        config={"embed_dim": 8, "vision_cfg": {"layers": [1, 1]}},
        image_size=32,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.2),
        weights_hash="ab",
        random_weights=True,
    ),
    dataset="tiny",
    licence="free",
    content_hash="c" * 64,
    render=RenderSettings(views=(View(0), View(20, -5.5)), size_px=64),
    text_hash="d" * 64,
    text_dim=8,
    random_text=True,
    cache="/somewhere",
)


def test_a_configuration_survives_the_disk(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    assert read_config(tmp_path) == CONFIG
    assert read_config(tmp_path).differences(CONFIG) == []


def test_a_run_of_earlier_names_is_read(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    recipe = settings["recipe"]
    recipe["accumulate"], recipe["window"] = recipe.pop("gradient_accumulation"), recipe.pop("frame_window")
    recipe["shuffle_labels"] = None
    del recipe["background"], settings["tower"]["background"]  # black was the only one
    path.write_text(json.dumps(settings))
    assert read_config(tmp_path) == CONFIG


def test_differences_are_named() -> None:
    other = replace(
        CONFIG, recipe=replace(CONFIG.recipe, lr=1.0, batch_size=3), content_hash="e" * 64, cache="/moved", dataset="x"
    )
    assert CONFIG.differences(other) == ["--batch-size", "--lr", "the cache's content"]


def test_damaged_and_missing_configurations(tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="no run here"):
        read_config(tmp_path)
    write_config(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    whole = path.read_text()
    settings = json.loads(whole)
    unknown_loss = json.dumps({**settings, "recipe": {**settings["recipe"], "extra_losses": ["mar\0gin=0.1"]}})
    for text in (whole[:200], "[]", "{}", whole.replace('"lr"', '"learning"'), unknown_loss, "\x00"):
        path.write_text(text)
        with pytest.raises(FacetError, match=r"config\.json: damaged"):
            read_config(tmp_path)
    path.write_text(json.dumps({**json.loads(whole), "version": 99}))
    with pytest.raises(FacetError, match="run version 99"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"epochs": -1}, "--epochs: expected 0 to"),
        ({"lr": float("nan")}, "--lr"),
        ({"batch_size": -4}, "--batch-size"),
        ({"fusion": "sum"}, "--fusion: expected cvsa or mean"),
        ({"modalities": ("texture", "thermal")}, "--modalities: expected texture or normal or depth, found 'thermal'"),
        ({"classes": ("anger", "anger")}, "--classes"),
        ({"warmup": 1.5}, "--warmup"),
        ({"tune": "last-"}, r"--tune: expected full\|frozen\|last-K\|lora\|lora-R, found 'last-'"),
        ({"tune": "lora-0"}, "--tune"),
        ({"tune": "last-2 "}, "--tune"),
        ({"layer_decay": 0.0}, "--layer-decay: expected 0.01 to 1"),
        ({"gradient_accumulation": 0}, "--gradient-accumulation: expected 1 to"),
        ({"ema": 1.0}, "--ema: expected 0 to"),
        ({"background": "0,0,256"}, r"--background: expected black\|mean\|R,G,B, found '0,0,256'"),
    ],
)
def test_choices_that_cannot_be_meant(choice: dict[str, object], message: str) -> None:
    with pytest.raises(FacetError, match=message):
        Options(**choice)  # type: ignore[arg-type]


def test_options_are_described_as_they_are_typed() -> None:
    changes = {"tune": "lora-4", "gradient_checkpointing": True, "ema": 0.999, "shuffle_labels": True}
    plain, changed = (describe_options(make_recipe(**options)) for options in ({}, changes))
    assert plain.startswith("--protocol kfold --folds 2 --rounds 1 --fold-seed 0 --task classes --classes anger,fear")
    words = changed.split(" ")
    assert " ".join(word for word in words if word not in plain.split(" ")) == (
        "--shuffle-labels --tune lora-4 --gradient-checkpointing --ema 0.999"
    )


def test_a_recipe_has_no_open_defaults() -> None:
    for name in ("classes", "tower_lr", "frames", "model"):
        with pytest.raises(FacetError, match=f"{option_name(name)}: expected a value"):
            make_recipe(**{name: None})
    with pytest.raises(FacetError, match="--classes"):
        make_recipe(classes=())
