"""A scan of BU-3DFE or BU-4DFE: a VRML file, the texture image and the landmarks that stand beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from preprocess.mesh import Mesh
from preprocess.readers.bnd import read_bnd
from preprocess.readers.surface import read_textured_vrml
from preprocess.scan import ScanRecord


def read_bu_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads the surface with the record's texture and landmarks.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    mesh = read_textured_vrml(root / record.source, texture=root / record.texture if record.texture else None)
    return replace(mesh, landmarks_mm=read_bnd(root / record.landmarks)) if record.landmarks else mesh
