"""A file of options is the command line written down: `--config` of build and pretrain."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

import pytest

from preprocess.arguments import build_parser as build_preprocess_parser
from shared.errors import FacetError
from shared.option_file import format_table
from train.arguments import build_parser as build_train_parser


def parse(*words: object) -> argparse.Namespace:
    build = build_preprocess_parser if words[0] == "build" else build_train_parser
    chosen = build().parse_args([str(word) for word in words])
    chosen.config = None
    return chosen


def test_a_file_is_the_command_line_written_down(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text(
        '[build]\nname = "BU4DFE"\nroot = "/scans"\ncache = "/c"\nsize = 96\nviews = [-20, 0]\nmodalities = "normal"\n'
        'strict = true\nstabilise = false\nworker_memory = "2GB"\n'
    )
    typed = ["build", "bu4dfe", "--root", "/scans", "--cache", "/c", "--size", 96, "--views=-20,0", "--modalities"]
    typed += ["normal", "--strict", "--no-stabilise", "--worker-memory", "2GB"]
    assert parse("build", "--config", path) == parse(*typed)
    assert parse("build", "--config", path, "--size", 64, "--cache", "/d") == parse(
        *typed, "--size", 64, "--cache", "/d"
    )
    assert parse("build", "bp4d", f"--config={path}").name == "bp4d"


def test_several_caches_of_a_file_are_replaced_by_typed_ones(tmp_path: Path) -> None:
    path = tmp_path / "pretrain.toml"
    caches = [Path("/a"), Path("/b")]
    path.write_text(format_table("pretrain", {"cache": caches, "modalities": ("normal",), "lr": 1e-5, "model": None}))
    chosen = parse("pretrain", "--config", path, "--out", "x")
    assert chosen == parse(
        "pretrain", "--cache", "/a", "--cache", "/b", "--modalities", "normal", "--lr", 1e-5, "--out", "x"
    )
    assert parse("pretrain", "--config", path, "--out", "x", "--cache", "/c").caches == [Path("/c")]


def test_text_survives_a_file() -> None:
    values = {"text": 'a "b"\n\x7fé', "path": Path("/a b"), "yes": True, "number": 1e-5, "names": ("a,b", "c")}
    table = tomllib.loads(format_table("x", values))["x"]
    assert table == values | {"path": "/a b", "names": ["a,b", "c"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[build]\nsizes = 3", "[build] sizes: unknown; did you mean size?"),
        ("[build]\nhelp = true", "[build] help: unknown"),
        ("[build]\nconfig = 'x'", "[build] config: unknown"),
        ("[built]\nsize = 3", "[built] is unknown; expected [build]"),
        ("size = 3", "[size] is unknown"),
        ("build = 3", "build: expected a table"),
        ("[build]\nsize = 'big'", "[build] size: expected a whole number, found 'big'"),
        ("[build]\nsize = true", "[build] size: expected a value as it is typed, found True"),
        ("[build]\nname = 'bu4d'", "[build] name: no 'bu4d'; did you mean bu4dfe?"),
        ("[build]\nstore = 'tar'", "[build] store: expected zarr or hdf5, found 'tar'"),
        ("[build]\nstrict = 1", "[build] strict: expected true or false, found 1"),
        ("[build]\nroot = ''", "[build] root: expected a text, found an empty one"),
        ("[build]\nroot = {}", "[build] root: expected a value as it is typed"),
        ("[build]\nworkers = 0", "[build] workers: expected at least 1, found 0"),
        ("[build", "not a TOML file"),
        ("\x00", "not a TOML file"),
    ],
)
def test_what_a_file_gets_wrong_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(FacetError) as error:
        parse("build", "--config", path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    with pytest.raises(FacetError, match="no such file"):
        parse("build", "--config", tmp_path / "none.toml")
