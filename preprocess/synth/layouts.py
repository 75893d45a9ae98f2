"""The layouts in which synthetic faces can be written, by the data sets' names."""

from __future__ import annotations

from pathlib import Path

from preprocess.synth.bosphorus import BOSPHORUS
from preprocess.synth.bp4d import BP4D
from preprocess.synth.bu3dfe import BU3DFE
from preprocess.synth.bu4dfe import BU4DFE
from preprocess.synth.fourdme import FOURDME
from preprocess.synth.population import Layout, write_population

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (BU3DFE, BOSPHORUS, BU4DFE, BP4D, FOURDME)}


def write_layout(
    name: str,
    out: Path,
    *,
    num_subjects: int,
    num_frames: int | None = None,
    seed: int = 0,
    progress: bool = True,
    num_workers: int | None = None,
) -> int:
    """Write a data set of synthetic faces in the layout called `name`; see write_population."""
    return write_population(
        LAYOUTS[name],
        out,
        num_subjects=num_subjects,
        num_frames=num_frames,
        seed=seed,
        progress=progress,
        num_workers=num_workers,
    )
