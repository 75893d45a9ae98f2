"""Every recipe that ships: its commands parse, its options resolve on a cache of its data set, and a training runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import UNITS, MakeCache, random_text
from next_commands import PARSERS
from test_train_cli import QUICK, call, fails

from shared.labels import BASIC_EXPRESSIONS
from shared.text import write_text_embeddings
from train.arguments import build_parser
from train.experiment import prepare_experiment
from train.option_parser import RECIPES, read_options, read_toml

IMAGES: dict[str, Any] = {"modalities": ("texture", "normal", "depth"), "num_subjects": 10}
SIX: dict[str, Any] = IMAGES | {"class_names": BASIC_EXPRESSIONS, "scans_per_class": 1}
# A cache of each recipe's data set, and options for what it lacks.
CACHES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bu3dfe": (SIX | {"dataset": "bu3dfe", "scans_per_class": 2, "intensities": ("03", "04")}, []),
    "bosphorus": (SIX | {"dataset": "bosphorus"}, []),
    "bu4dfe": (SIX | {"dataset": "bu4dfe", "num_frames": 3, "apex": 1}, []),
    "bp4d-aus": (
        IMAGES | {"dataset": "bp4d", "num_frames": 3, "scans_per_class": 1, "units": "aus"},
        ["--classes", ",".join(UNITS)],
    ),
    "4dme": (
        IMAGES
        | {"dataset": "4dme", "class_names": ("positive", "negative", "surprise", "repression", "others")}
        | {"num_frames": 2, "scans_per_class": 1, "num_subjects": 3},
        [],
    ),
    "laptop": (IMAGES, []),
}


@pytest.mark.parametrize("name", RECIPES)
def test_its_options_resolve(tiny_cache: MakeCache, tiny_model: str, tmp_path: Path, name: str) -> None:
    about, more = CACHES[name]
    command = ["fit", "--config", name, "--cache", str(tiny_cache(**about)), "--out", str(tmp_path / "run")]
    chosen = build_parser().parse_args([*command, "--model", tiny_model, "--pretrained", "none", *more])
    options, run = read_options(chosen)
    recipe = prepare_experiment(options, run, tmp_path / "run").recipe
    written = read_toml(RECIPES[name])
    assert {"protocol", "modalities", "views", "lambda_con", "lambda_vt", "epochs"} <= written.keys()
    for option, value in written.items():
        assert getattr(recipe, option) == value or option in ("model", "pretrained")
    assert recipe.model == tiny_model


@pytest.mark.parametrize("name", RECIPES)
def test_its_head_says_what_to_run_and_to_expect(name: str) -> None:
    text = RECIPES[name].read_text(encoding="utf-8")
    commands = re.findall(r"^#   python -m (preprocess|train) (.*)$", text, re.MULTILINE)
    for package, words in commands:
        PARSERS[package]().parse_args(shlex.split(words))
    assert f"--config {name} " in commands[-1][1]
    assert "one GPU: " in text and "Synthetic score: " in text


def test_it_trains_with_options_that_override_it(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = tiny_cache(num_subjects=3, scans_per_class=1), tmp_path / "run"
    write_text_embeddings(
        cache / "text" / "facet-tiny.h5", random_text(("anger", "happiness", "surprise"), 128, "facet-tiny")
    )
    command = ["fit", "--config", "laptop", "--cache", cache, "--model", "facet-tiny", "--pretrained", "none"]
    assert call(*command, *QUICK, "--epochs", 1, "--modalities", "normal", "--out", run) == 0
    recipe = json.loads((run / "config.json").read_text())["recipe"]
    found = {name: recipe[name] for name in ("views", "epochs", "modalities", "lambda_vt")}
    assert found == {"views": ["0", "20", "-20"], "epochs": 1, "modalities": ["normal"], "lambda_vt": 0.5}
    assert "no such file, and no recipe; did you mean laptop? (recipes: 4dme, bosphorus, " in fails(
        capsys, *command[:2], "labtop", *command[3:], "--out", run
    )
