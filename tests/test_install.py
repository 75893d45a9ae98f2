"""What `pip install` makes of this repository: a wheel with every file that the program reads, and commands for any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from test_imports import FORBIDDEN, ROOT, read_requirements

from preprocess.geometry.mesh import Mesh
from preprocess.synth.range_scan import scan_from_front
from shared.errors import FacetError


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what a wheel of this repository installs."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for package in FORBIDDEN:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, source)
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = (source / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out)
    return out


def list_package_files(root: Path) -> set[str]:
    paths = (path for package in FORBIDDEN for path in (root / package).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in paths if path.suffix != ".md" and "__pycache__" not in path.parts}


def test_the_wheel_holds_every_file(installed: Path) -> None:
    assert list_package_files(installed) == list_package_files(ROOT)


def test_the_commands_work_in_any_folder(installed: Path, tmp_path: Path) -> None:
    (about,) = installed.glob("*.dist-info/entry_points.txt")
    named = dict(line.split(" = ") for line in about.read_text().splitlines() if " = " in line)
    assert sorted(named) == ["facet-preprocess", "facet-train"]
    for name, value in named.items():
        assert callable(EntryPoint(name, value, "console_scripts").load())
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "train", "protocols", "bu3dfe-p1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "60 subjects" in done.stdout


def test_open3d_is_an_extra(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    required = message_from_bytes(metadata.read_bytes()).get_all("Requires-Dist", [])
    base = [line for line in required if "extra ==" not in line]
    assert not [line for line in base if line.startswith(("open3d", "pytest", "s3fs"))]
    by_extra = {e: [x for x in required if f'extra == "{e}"' in x] for e in ("synth", "s3", "dev")}
    assert [len(by_extra[extra]) for extra in ("synth", "s3")] == [1, 2]
    lines = [line for file in ("requirements.txt", "requirements-dev.txt") for line in read_requirements(ROOT / file)]
    assert len(base) + len(by_extra["dev"]) == len(lines) == len(set(lines))


def test_without_open3d_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    point = np.zeros((3, 3), np.float32)
    with pytest.raises(FacetError, match="pip install open3d"):
        scan_from_front(Mesh(point, np.array([[0, 1, 2]], np.int32), landmarks_mm=point))
