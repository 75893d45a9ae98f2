"""The layouts that synthetic faces can be written in, by the data sets' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from preprocess.synth.bosphorus import write_bosphorus
from preprocess.synth.bp4d import write_bp4d
from preprocess.synth.bu3dfe import write_bu3dfe
from preprocess.synth.bu4dfe import write_bu4dfe
from preprocess.synth.fourdme import write_4dme
from shared.errors import FacetError

# Single scans; sequences, whose number of frames can be chosen.
STATIC: dict[str, Callable[..., int]] = {"bu3dfe": write_bu3dfe, "bosphorus": write_bosphorus}
DYNAMIC: dict[str, Callable[..., int]] = {"bu4dfe": write_bu4dfe, "bp4d": write_bp4d, "4dme": write_4dme}


def write_layout(name: str, out: Path, *, num_subjects: int, num_frames: int | None = None, seed: int = 0) -> int:
    """Writes one data set of synthetic faces; `num_frames` None is the layout's own default.

    Returns:
        The number of scans.
    Raises:
        FacetError: a parameter is outside what the layout holds, or the folder holds something else.
    """
    if name in STATIC:
        if num_frames is not None:
            raise FacetError(f"--frames: {name} holds single scans; frames are for {', '.join(DYNAMIC)}")
        return STATIC[name](out, num_subjects=num_subjects, seed=seed)
    length = {} if num_frames is None else {"num_frames": num_frames}
    return DYNAMIC[name](out, num_subjects=num_subjects, seed=seed, **length)
