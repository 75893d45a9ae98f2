"""What a mesh may hold: each triangle with all of its texture coordinates or with none."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.datasets.scan import Listing
from preprocess.geometry.mesh import Mesh
from shared.errors import ScanError

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
TRIANGLES = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
UV = VERTICES[TRIANGLES][..., :2]
TEXTURE = np.zeros((2, 2, 3), np.uint8)


def test_triangles_may_lack_texture_coordinates() -> None:
    some, none = UV.copy(), np.full_like(UV, np.nan)
    some[1] = np.nan
    for uv in (UV, some, none):
        assert Mesh(VERTICES, TRIANGLES, uv, TEXTURE, np.zeros((4, 3), np.uint8)).has_appearance


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 2e6, -2e6])
@pytest.mark.parametrize("corner", [(0, 0), (2, 1)])
def test_triangles_with_some_of_them_are_refused(number: float, corner: tuple[int, int]) -> None:
    for first in (UV[0], np.full((3, 2), np.nan)):
        uv = np.stack([first, UV[1]]).astype(np.float32)
        uv[1][corner] = number
        with pytest.raises(ScanError, match="a texture coordinate"):
            Mesh(VERTICES, TRIANGLES, uv)
    with pytest.raises(ScanError, match="a texture coordinate"):
        Mesh(VERTICES, TRIANGLES, np.full_like(UV, np.inf))


def test_notes_are_single_lines() -> None:
    """Names in a file, and of folders, may hold any character."""
    vertices, triangles = np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)
    assert Mesh(vertices, triangles, notes=("uses a\x7f\nb",)).notes == ("uses a\\x7f\\nb",)
    assert Listing([], ["clips of s\n1"]).notes == ["clips of s\\n1"]
