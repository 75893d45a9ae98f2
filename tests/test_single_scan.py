"""One scan drawn in memory equals the row that a build stores of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scan_folders import write_scan, write_scan_folder
from test_readme import TEXTS

import preprocess
from preprocess import read_scan, render
from preprocess.build.build import build_cache
from preprocess.build.executors import Workers
from preprocess.datasets.folder import FOLDER
from shared.cache import open_cache
from shared.errors import FacetError, ScanError
from shared.schema import RenderSettings, View


def test_render_gives_the_images_of_a_build(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "scans", 2, without_texture=(1,))
    settings = RenderSettings(views=(View(0), View(30), View(0, 15)), size_px=32)
    build_cache(FOLDER, tmp_path / "scans", tmp_path / "cache", settings, workers=Workers(1))
    stored = open_cache(tmp_path / "cache").arrays
    for row in range(2):
        path = tmp_path / f"scans/scan00{row}.obj"
        views = render(read_scan(path, landmarks=path.with_suffix(".csv")), [0, 30, (0, 15)], size_px=32)
        assert list(views.images) == ["texture", "normal", "depth"][row:]
        for name, images in views.images.items():
            np.testing.assert_array_equal(images, stored.read(name, [row])[0])


def test_the_example_in_the_manual_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(from preprocess import .*?)```", TEXTS["preprocess/README.md"], re.DOTALL)
    write_scan(tmp_path, "face", 1.0)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["views"].images["depth"].shape == (3, 96, 96)  # type: ignore[attr-defined]


def test_units_are_those_of_a_manifest(tmp_path: Path) -> None:
    write_scan(tmp_path, "face", 1.0)
    size_mm = np.ptp(read_scan(tmp_path / "face.obj").vertices_mm, axis=0)
    for units, times in (("cm", 10.0), (2.5, 2.5)):
        mesh = read_scan(str(tmp_path / "face.obj"), units=units, texture=tmp_path / "face.png")
        np.testing.assert_allclose(np.ptp(mesh.vertices_mm, axis=0), size_mm * times, rtol=1e-5)


def test_errors_and_warnings_are_told(tmp_path: Path) -> None:
    write_scan(tmp_path, "face", 1.0)
    (tmp_path / "face.mtl").write_text("newmtl skin\nmap_Kd elsewhere.png\n")
    with pytest.warns(UserWarning, match=r"elsewhere\.png"):
        assert render(tmp_path / "face.obj", size_px=32).texture is None
    mesh = read_scan(tmp_path / "face.obj")
    for wrong in (
        lambda: read_scan(tmp_path / "face.obj", units="km"),
        lambda: read_scan(tmp_path / "face.obj", units=-1),
        lambda: render(mesh, [0, 400]),
        lambda: render(mesh, size_px=4),
    ):
        with pytest.raises(FacetError):
            wrong()
    with pytest.raises(ScanError, match="no such file"):
        render(tmp_path / "nothing.obj")


def test_the_package_names_what_is_public() -> None:
    code = "import sys, preprocess; assert 'numba' not in sys.modules and 'numpy' not in sys.modules; preprocess.Mesh"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert dir(preprocess) == sorted(preprocess.__all__)
    with pytest.raises(AttributeError, match="public are"):
        _ = preprocess.draw  # type: ignore[attr-defined]
