"""The folder of a synthetic data set: what was lost comes back, what is another's is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from shared.errors import FacetError


@pytest.mark.parametrize(("name", "num_frames"), [("bu3dfe", None), ("bu4dfe", 3), ("4dme", 7)])
def test_a_lost_file_is_written_again(name: str, num_frames: int | None, tmp_path: Path) -> None:
    out = tmp_path / "scans"
    count = write_population(LAYOUTS[name], out, num_subjects=1, num_frames=num_frames, seed=3)
    whole = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    lost = next(path for path in whole if path.suffix in (".wrl", ".obj"))
    lost.unlink()
    assert write_population(LAYOUTS[name], out, num_subjects=1, num_frames=num_frames, seed=3) == count
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == whole


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FacetError, match="not empty"):
        write_population(LAYOUTS["bu3dfe"], tmp_path, num_subjects=1, seed=0)
    write_population(LAYOUTS["bu4dfe"], tmp_path / "a", num_subjects=1, num_frames=3, seed=0)
    with pytest.raises(FacetError, match="another synthetic data set"):
        write_population(LAYOUTS["bu4dfe"], tmp_path / "a", num_subjects=1, num_frames=3, seed=1)
