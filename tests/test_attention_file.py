"""The file of what a model looked at: it comes back as it was; what is damaged or does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES

from shared.attention_file import (
    ATTENTION_FILE,
    Attention,
    read_attention,
    read_class_patches,
    read_patches,
    write_attention,
)
from shared.errors import FacetError


def small_attention() -> Attention:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.random(shape).astype(np.float16)

    return Attention(
        ("a", "b"), CLASSES, ("depth",), ("0", "-20:10"), rows=np.array([[1], [4]], np.int32), faces=some(2, 5),
        frame_weights=some(2, 1), view_weights=some(2, 1, 2), class_attention=some(2, 3, 1, 2), prompt_cosines=some(2, 3, 2),
        patches=some(1, 1, 2, 4, 4), class_patches=some(1, 3, 2, 3, 3), patch_place=np.array([-1, 0], np.int32),
        prompts=(("x",), ("y", "z"), ("ü",)),
    )  # fmt: skip


def test_a_file_comes_back_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / ATTENTION_FILE
    attention = small_attention()
    write_attention(path, attention)
    found = read_attention(path)
    for name, value in vars(replace(attention, patches=None, class_patches=None)).items():
        assert (
            np.array_equal(getattr(found, name), value)
            if isinstance(value, np.ndarray)
            else getattr(found, name) == value
        )
    assert attention.patches is not None and read_patches(path, found, 0) is None
    assert np.array_equal(read_patches(path, found, 1), attention.patches[0])  # type: ignore[arg-type]
    assert read_class_patches(path, found, 0) is None
    assert np.array_equal(read_class_patches(path, found, 1), attention.class_patches[0])  # type: ignore[arg-type, index]
    data = path.read_bytes()
    for length in (*range(0, len(data), 97), len(data) - 1):
        path.write_bytes(data[:length])
        for read in (
            lambda: read_attention(path),
            lambda: read_patches(path, found, 1),
            lambda: read_class_patches(path, found, 1),
        ):
            with pytest.raises(FacetError, match="cannot be read"):
                read()
    path.unlink()
    with pytest.raises(FacetError, match=r"missing; `python -m train evaluate"):
        read_attention(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": np.zeros((3, 1), np.int32)},
        {"rows": np.zeros((2, 1), np.int64)},
        {"faces": np.full((2, 5), np.nan, np.float16)},
        {"class_names": ("a", "b")},
        {"views": ("0", "20", "-20")},
        {"patch_place": np.array([0, 1], np.int32)},
        {"patch_place": np.array([0, -2], np.int32)},
        {"patches": np.zeros((1, 1, 2, 4, 5), np.float16)},
        {"patches": np.zeros((1, 1, 2, 0, 0), np.float16)},
        {"patches": np.zeros((1, 1, 2, 4, 4), np.float32)},
        {"class_patches": np.zeros((1, 2, 2, 3, 3), np.float16)},
        {"class_patches": np.zeros((2, 3, 2, 3, 3), np.float16)},
        {"class_patches": np.zeros((1, 3, 2, 3, 4), np.float16)},
        {"class_patches": np.zeros((1, 3, 2, 3, 3), np.float32)},
        {"patch_place": None},
        {"prompts": (("x",), ("y", "z", "w"), ("v",))},
        {"prompts": ()},
        {"prompts": (("x",), (), ("v",))},
        {"faces": np.zeros((2, 0), np.float16)},
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / ATTENTION_FILE
    write_attention(path, replace(small_attention(), **changes))
    with pytest.raises(FacetError, match="cannot be read"):
        read_attention(path)


@pytest.mark.parametrize("shape", [(1, 2, 2, 4, 4), (1, 1, 1, 4, 4), (1, 1, 2, 0, 0), (0, 1, 2, 4, 4)])
def test_maps_that_changed_meanwhile_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / ATTENTION_FILE
    write_attention(path, small_attention())
    found = read_attention(path)
    write_attention(path, replace(small_attention(), patches=np.zeros(shape, np.float16)))
    with pytest.raises(FacetError, match="cannot be read"):
        read_patches(path, found, 1)
