"""A mesh format is one file and one line in a table: the manual's example, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from preprocess.readers import surface
from preprocess.readers.file_bytes import describe_kind
from shared.errors import ScanError

MANUAL = Path(__file__).resolve().parents[1] / "preprocess" / "README.md"
FIRST_BYTES = {
    "PLY": b"ply\n",
    "STL": b"solid a",
    "GLB": b"glTF\2",
    "OFF": b"OFF\n",
    "VRML": b"#VRML V2.0",
    "OBJ": b"mtllib",
}


def test_the_manuals_example_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = MANUAL.read_text().split("### Adding a file format")[1].split("\n### ")[0]
    module, line = re.findall(r"```(?:python)?\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {"__name__": "raw", "MeshFormat": surface.MeshFormat}
    exec(compile(module, "raw.py", "exec"), names)
    monkeypatch.setattr(surface, "FORMATS", surface.FORMATS | eval("{" + line.strip() + "}", names))
    path = tmp_path / "a.raw"
    path.write_text("0 0 0 10 0 0 10 10 0\n0 0 0 10 10 0 0 10 5\n")
    mesh = surface.read_surface(path)
    assert mesh.vertices_mm.tolist() == [[0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 5]]
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert surface.find_surface_files(path) == [path]
    for text in ("", "\n", "0 0 0 10 0 0 10 10\n", "0 0 0 10 0 0 10 10 x\n", "0 0 0 10 0 0 10 nan 0\n", "glTF\2"):
        path.write_text(text)
        with pytest.raises(ScanError, match=r"a\.raw: "):
            surface.read_surface(path)


def test_formats_are_called_as_their_content_is() -> None:
    kinds = {format_.kind for format_ in surface.FORMATS.values()} - {"ABS"}  # which begins with a number
    assert {kind: describe_kind(FIRST_BYTES[kind]) for kind in kinds} == {kind: kind for kind in kinds}
