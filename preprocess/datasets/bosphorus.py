"""Bosphorus: 105 subjects, 4,666 static scans: expressions, action units, head rotations, occlusions.

Savran et al. 2008, "Bosphorus database for 3D face analysis".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preprocess.datasets.bosphorus_action_units import AU_NAMES, ActionUnits, describe_action_units, find_action_units
from preprocess.datasets.completeness import describe_counts, describe_lacking
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord, name_other_scan
from preprocess.datasets.subject_folders import (
    describe_archives,
    describe_strange,
    find_subject_folders,
    find_texture,
    holds_scans,
    list_files,
)
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bnt import bnt_to_mesh, read_bnt
from preprocess.readers.file_bytes import name_errors
from preprocess.readers.image import read_image
from preprocess.readers.lm3 import BOSPHORUS_LANDMARK_GROUPS, NUM_BOSPHORUS_LANDMARKS, read_lm3
from shared.labels import BASIC_EXPRESSIONS, BOSPHORUS_CODES, EXPRESSIONS
from shared.pairs import group_pairs

_EXPECTED = "bs000/bs000_N_N_0.bnt"
_SUBJECT = re.compile(r"bs\d{3}", re.IGNORECASE)
# Subject, code group, what the group's scan shows, and its number: bs000_E_HAPPY_0, bs000_LFAU_12_0, bs000_IGN_1.
_SCAN = re.compile(r"(BS\d{3})_([A-Z]+)(?:_(.+))?\.BNT")
_NAMED = re.compile(r"bs\d{3}_\w+", re.IGNORECASE)
_LABELS = {**BOSPHORUS_CODES, "E_HAPPINESS": "happiness", "E_SAD": "sadness", "E_SURPRISED": "surprise"}


def find_bosphorus(root: Path) -> Listing:
    """List every scan, by subject and name, with its action units if their list is there.

    Only E_ and N_ scans are labelled; `task` is the name's code group, for all of them.

    Raises:
        FacetError: the root holds no Bosphorus.
    """
    subjects = find_subject_folders(root, _SUBJECT, _EXPECTED, name="bosphorus", holds=holds_scans(_SCAN))
    units = find_action_units(root, subjects.base, _SUBJECT)
    files = {subject: list_files(root, folder) for subject, folder in subjects.folders.items()}
    records = [record for subject, names in files.items() for record in _list_subject(subject, names, units)]
    lines = _describe_lacking(records) + describe_action_units(root, units, records)
    lines += describe_strange(files, ".BNT", _SCAN)
    return Listing(records, lines + describe_archives(root, subjects))


def _list_subject(subject: str, files: dict[str, str], units: ActionUnits) -> list[ScanRecord]:
    records = []
    for name, source in files.items():
        match = _SCAN.fullmatch(name)
        if match is None or match[1] != subject:
            continue
        stem = name.removesuffix(".BNT")
        shown = (match[3] or "").split("_")[0]
        records.append(
            ScanRecord(
                sample_id="bs" + stem[2:],
                subject=subject.lower(),
                source=source,
                label=_LABELS.get(f"{match[2]}_{shown}", ""),
                task=match[2],
                texture=find_texture(files, stem),
                landmarks=files.get(f"{stem}.LM3", ""),
                aus=units.values_of("bs" + stem[2:]),
            )
        )
    return records


def _describe_lacking(records: Sequence[ScanRecord]) -> list[str]:
    """Describe what a partial copy lacks, and how many subjects show all expressions: not all do, even in a whole copy."""
    shown = group_pairs((record.subject, record.label) for record in records)
    whole = sum({*labels} >= {*BASIC_EXPRESSIONS} for labels in shown.values())
    return [
        *describe_counts(records, subjects=105, scans=4666),
        *describe_lacking(records, "pictures", lambda record: not record.texture),
        *describe_lacking(records, "landmarks (.lm3)", lambda record: not record.landmarks),
        f"{whole} of {len(shown)} subjects show all six expressions",
    ]


def read_bosphorus_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads a grid as a mesh, with the picture and the landmarks that stand beside it.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    path = root / record.source
    grid = read_bnt(path)
    with name_errors(path):
        mesh = bnt_to_mesh(grid)
    mesh = name_other_scan(mesh, record, grid.image_name, _NAMED)
    return replace(
        mesh,
        texture=read_image(root / record.texture) if record.texture else None,
        landmarks_mm=read_lm3(root / record.landmarks) if record.landmarks else None,
    )


BOSPHORUS = DatasetReader(
    name="bosphorus",
    title="Bosphorus",
    licence="Bosphorus: licensed by Boğaziçi University for research; faces may only be shown as its agreement allows",
    class_names=EXPRESSIONS,
    find=find_bosphorus,
    read=read_bosphorus_scan,
    num_landmarks=NUM_BOSPHORUS_LANDMARKS,
    landmark_groups=BOSPHORUS_LANDMARK_GROUPS,
    au_names=AU_NAMES,
)
