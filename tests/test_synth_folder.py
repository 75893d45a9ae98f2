"""Synthetic faces as a folder with a manifest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from preprocess.datasets import DATASETS
from preprocess.synth.folder import SCANS_PER_SUBJECT, VARIANTS
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population

NUM_SUBJECTS = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "data"
    num_scans = write_population(LAYOUTS["folder"], root, num_subjects=NUM_SUBJECTS, progress=False, num_workers=1)
    assert num_scans == NUM_SUBJECTS * SCANS_PER_SUBJECT
    return root


def test_every_scan_is_listed_with_its_units(root: Path) -> None:
    rows = list(csv.DictReader((root / "manifest.csv").open()))
    listing = DATASETS["folder"].find(root)
    assert len(rows) == len(listing.records) == len(list(root.rglob("*.obj")))
    for row, record in zip(rows, listing.records, strict=True):
        shown = dict(zip(listing.au_names, record.aus, strict=True))
        assert record.label == row["label"] and record.label in {*VARIANTS, "neutral", ""}
        for name, value in shown.items():
            assert value == int(row[name])
            if "_" not in name:  # present where its intensity is A or more
                assert value == (shown[f"{name}_intensity"] > 0)
        if record.label in VARIANTS:  # every variant of an expression shows one of its units
            units = {f"AU{unit}" for way in VARIANTS[record.label] for unit in way}
            assert any(shown[unit] for unit in units)


def test_scanners_differ_and_the_mesh_stays_a_face(root: Path) -> None:
    dataset = DATASETS["folder"]
    records = dataset.find(root).records
    meshes = [dataset.read(root, record) for record in records[:8]]
    assert len({len(mesh.triangles) for mesh in meshes}) > 1  # holes in some
    for mesh in meshes:
        points = mesh.landmarks_mm
        assert points is not None and mesh.texture is not None
        assert 50 < np.linalg.norm(points[0] - points[1]) < 80  # between the eyes, mm
