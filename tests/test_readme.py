"""Every command, option, make target, path and link that a manual names exists, and its examples do what it says."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeCache
from next_commands import PARSERS
from scan_folders import write_scan

from preprocess.__main__ import main
from preprocess.datasets import DATASETS
from preprocess.readers.landmark_points import read_face_points
from shared.cache import open_cache

ROOT = Path(__file__).resolve().parents[1]
MANUALS = ("README.md", "preprocess/README.md", "train/README.md", "shared/README.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in MANUALS}
# What stands for a user's own words in a command, where the command line checks them.
PLACEHOLDERS = {"NAME": "bu3dfe", "$seed": "0", "$SLURM_ARRAY_TASK_ID": "0"}
COMMANDS = sorted(
    {
        (name, line.strip(' "'))
        for name, text in TEXTS.items()
        for line in re.findall(r"python -m ((?:preprocess|train) [^\n`#]*)", text)
        if "…" not in line
    }
)
MAX_LINES = 160  # of README.md: more belongs into a manual


@cache
def known_options(package: str) -> frozenset[str]:
    """All options of all commands of a package."""
    (commands,) = (a for a in PARSERS[package]()._actions if isinstance(a, argparse._SubParsersAction))
    return frozenset(option for parser in commands.choices.values() for option in parser._option_string_actions)


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_commands_are_accepted(name: str, line: str) -> None:
    package, *words = shlex.split(line)
    parsed = PARSERS[package]().parse_args([PLACEHOLDERS.get(word, word) for word in words])
    assert parsed.command == words[0]


@pytest.mark.parametrize("name", MANUALS)
def test_options_exist(name: str) -> None:
    """Each option in backticks belongs to some command."""
    text = re.sub(r"```.*?```", "", TEXTS[name], flags=re.DOTALL)
    known = known_options("preprocess") | known_options("train")
    named = {option for span in re.findall(r"`(--[^`]*)`", text) for option in re.findall(r"--[a-z][a-z-]*", span)}
    assert named - known <= {"--help"}


@pytest.mark.parametrize("name", MANUALS)
def test_paths_exist(name: str) -> None:
    """Files and folders of this repository, in backticks, from its root."""
    paths = set(re.findall(r"`((?:shared|preprocess|train|tests|data_cache)/[\w./-]*)`", TEXTS[name]))
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]
    assert name != "README.md" or len(paths) > 5


@pytest.mark.parametrize("name", MANUALS)
def test_links_and_pictures_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)]*)\)", TEXTS[name]):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.is_file(), target
        assert not heading or heading in find_headings(file), target


def find_headings(file: Path) -> set[str]:
    """The anchors that GitHub makes of a file's headings."""
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {
        re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(TEXTS.values())
    named = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)`", text))
    assert {"demo", "test"} <= named <= targets


def test_the_first_page_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= MAX_LINES


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_the_examples_read_a_cache(store: str, tiny_cache: MakeCache) -> None:
    """Two shards, one scan without a texture, one that failed."""
    path = tiny_cache(num_subjects=11, store=store, without_texture=(3,), invalid=(64,))
    cache = open_cache(path)
    module = {"zarr": "zarr", "hdf5": "h5py"}[store]
    (example,) = (
        block
        for text in TEXTS.values()
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if f"\nimport {module}\n" in block
    )
    code, named = re.subn(r'(?<=^cache = )"[^"]*"', repr(str(path)), example, flags=re.MULTILINE)
    assert named == 1 and len(cache.samples) > 64
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    shown = [s for s in cache.samples if s.valid and s.has("texture")]
    assert printed.getvalue().splitlines() == [f"{s.sample_id} {s.label} (3, 32, 32, 3)" for s in shown]
    if store == "zarr":
        stored = names["views"]["texture"][65]  # type: ignore[index]
        np.testing.assert_array_equal(stored, cache.arrays.read("texture", [65])[0])


@pytest.mark.parametrize("name", MANUALS)
def test_python_examples_compile(name: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", TEXTS[name], re.DOTALL):
        entry = re.match(r"# [A-Z]+ in train/", block)  # an entry of a table
        compile(f"{{{block}}}" if entry else block, name, "exec")


def test_the_examples_of_own_scans_are_read(tmp_path: Path) -> None:
    manifest, landmarks = (
        re.search(rf"```\n({start}.*?)```", TEXTS["preprocess/README.md"], re.DOTALL)[1]  # type: ignore[index]
        for start in ("path,subject,label", "left_eye,")
    )
    (tmp_path / "manifest.csv").write_text(manifest, encoding="utf-8")
    first, neutral = DATASETS["folder"].find(tmp_path).records
    assert (first.source, first.intensity, neutral.label) == ("P01/besuch 1/lächeln.ply", "02", "neutral")
    assert dict(neutral.groups) == {"site": "Bonn"}
    path = tmp_path / Path(first.landmarks).name
    path.write_text(landmarks, encoding="utf-8")
    left_eye, right_eye, _, mouth = read_face_points(path)[0][:4]
    assert left_eye[0] > 0 > right_eye[0]  # the subject's left is +x
    assert np.isfinite([left_eye, right_eye, mouth]).all()


def test_the_example_of_a_new_data_set_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", TEXTS["preprocess/README.md"], re.DOTALL)
        if "DatasetReader(" in block
    )
    names: dict[str, Any] = {}
    exec(example, names)
    monkeypatch.setitem(DATASETS, "myset", names["MY_SET"])
    for index, (subject, expression) in enumerate([("P01", "happiness"), ("P02", "fear")]):
        (tmp_path / "scans" / subject).mkdir(parents=True)
        write_scan(tmp_path / "scans" / subject, f"{expression}_2", 0.5 * index)
    command = ["build", "myset", "--root", str(tmp_path / "scans"), "--cache", str(tmp_path / "cache"), "--size", "32"]
    assert main([*command, "--workers", "1"]) == 0
    samples = open_cache(tmp_path / "cache").samples
    assert [(s.sample_id, s.subject, s.label) for s in samples if s.valid] == [
        ("P01/happiness_2", "P01", "happiness"),
        ("P02/fear_2", "P02", "fear"),
    ]
