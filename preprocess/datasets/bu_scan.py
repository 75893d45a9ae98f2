"""A scan of BU-3DFE or BU-4DFE: a VRML file, the texture image and the landmarks that stand beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.datasets.scan import ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bu_landmarks import NUM_BU_LANDMARKS, read_bnd, read_pse
from preprocess.readers.vrml import read_vrml

PSE_SUFFIX = ".pse"


def read_bu_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads the surface with the record's texture and landmarks: 83, or 83 unknown ones and then the 8 of a .pse file.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    mesh = read_vrml(root / record.source, texture=root / record.texture if record.texture else None)
    if not record.landmarks:
        return mesh
    path = root / record.landmarks
    if path.suffix.lower() != PSE_SUFFIX:
        return replace(mesh, landmarks_mm=read_bnd(path))
    unknown = np.full((NUM_BU_LANDMARKS, 3), np.nan, np.float32)
    return replace(mesh, landmarks_mm=np.concatenate([unknown, read_pse(path)]))
