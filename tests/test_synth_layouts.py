"""What the writers of synthetic data sets refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from shared.errors import FacetError


@pytest.mark.parametrize(
    ("name", "subjects", "frames", "words"),
    [
        ("bosphorus", 106, None, ["--subjects 106", "105"]),
        ("bosphorus", 0, None, ["--subjects 0"]),
        ("bosphorus", 1, 8, ["--frames", "bosphorus", "single scans"]),
        ("bp4d", 42, None, ["--subjects 42", "41"]),
        ("bp4d", 1, 2, ["--frames 2", "3"]),
        ("bp4d", 1, 1001, ["--frames 1001", "1000"]),
        ("4dme", 100, None, ["--subjects 100", "sub99"]),
        ("4dme", 1, 6, ["--frames 6", "7"]),
    ],
)
def test_what_a_layout_cannot_hold_is_refused(
    tmp_path: Path, name: str, subjects: int, frames: int | None, words: list[str]
) -> None:
    with pytest.raises(FacetError) as error:
        write_population(LAYOUTS[name], tmp_path / "data", num_subjects=subjects, num_frames=frames)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()
