"""Every command, option, make target and path that the README names exists, and its examples do what it says."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache

from preprocess.datasets import DATASETS
from preprocess.readers.landmark_points import read_face_points
from shared.cache import open_cache

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python -m ((?:preprocess|train) [^\n`#]*)", README)))
# Files and folders of this repository, in backticks, with a slash or a suffix of ours.
PATHS = sorted(set(re.findall(r"`((?:shared|preprocess|train|tests|data_cache)/[\w./-]*)`", README)))


@cache
def help_of(package: str, command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", package, command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line: str) -> None:
    package, command, *words = line.split()
    text = help_of(package, command)
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not in {package} {command} --help"


def test_paths_exist() -> None:
    assert len(PATHS) > 5
    missing = [path for path in PATHS if not (ROOT / path).exists()]
    assert not missing
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README):
        assert (ROOT / picture).is_file()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)) <= targets


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_the_examples_read_a_cache(store: str, tiny_cache: MakeCache) -> None:
    """Two shards, one scan without a texture, one that failed."""
    path = tiny_cache(num_subjects=11, store=store, without_texture=(3,), invalid=(64,))
    cache = open_cache(path)
    module = {"zarr": "zarr", "hdf5": "h5py"}[store]
    (example,) = (
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if f"\nimport {module}\n" in block
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


def test_the_examples_of_own_scans_are_read(tmp_path: Path) -> None:
    manifest, landmarks = (
        re.search(rf"```\n({start}.*?)```", README, re.DOTALL)[1]  # type: ignore[index]
        for start in ("path,subject,label", "left_eye,")
    )
    (tmp_path / "manifest.csv").write_text(manifest, encoding="utf-8")
    first, neutral = DATASETS["folder"].find(tmp_path)
    assert (first.source, first.intensity, neutral.label) == ("P01/besuch 1/lächeln.ply", "02", "neutral")
    path = tmp_path / Path(first.landmarks).name
    path.write_text(landmarks, encoding="utf-8")
    points = read_face_points(path)
    assert points[0, 0] > 0 > points[1, 0]  # the subject's left is +x
    assert np.isfinite(points[:4]).all()
