"""Bosphorus: 105 subjects, 4,666 static scans: expressions, action units, head rotations, occlusions.

Savran et al. 2008, "Bosphorus database for 3D face analysis".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from preprocess.datasets.bosphorus_action_units import AU_NAMES, ActionUnits, describe_action_units, find_action_units
from preprocess.datasets.completeness import describe_counts, describe_lacking
from preprocess.datasets.scan import DatasetReader, ScanRecord, find_scan_files
from preprocess.datasets.subject_folders import (
    Subjects,
    describe_archives,
    find_subject_folders,
    is_left_behind,
    list_names,
    relative,
)
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bnt import bnt_to_mesh, read_bnt
from preprocess.readers.image import read_image
from preprocess.readers.lm3 import BOSPHORUS_LANDMARK_GROUPS, NUM_BOSPHORUS_LANDMARKS, read_lm3
from shared.errors import ScanError
from shared.labels import BOSPHORUS_CODES, EXPRESSIONS

_EXPECTED = "bs000/bs000_N_N_0.bnt"
_SUBJECT = re.compile(r"bs\d{3}", re.IGNORECASE)
# Subject, code group, what the group's scan shows, and its number: bs000_E_HAPPY_0, bs000_LFAU_12_0, bs000_IGN_1.
_SCAN = re.compile(r"(BS\d{3})_([A-Z]+)(?:_(.+))?\.BNT")
_LABELS = {**BOSPHORUS_CODES, "E_HAPPINESS": "happiness", "E_SAD": "sadness", "E_SURPRISED": "surprise"}
_TEXTURE_SUFFIXES = (".PNG", ".BMP", ".JPG", ".JPEG")


def find_bosphorus(root: Path) -> list[ScanRecord]:
    """Every scan, by subject and name, with its action units where their list is there. Only E_ and N_ scans are labelled;
    `task` is the name's code group, for all of them.

    Raises:
        FacetError: the root holds no Bosphorus.
    """
    subjects = _find_subjects(root)
    units = find_action_units(root, subjects.base, _SUBJECT)
    return [
        record for subject, folder in subjects.folders.items() for record in _find_subject(root, subject, folder, units)
    ]


def _find_subjects(root: Path) -> Subjects:
    return find_subject_folders(root, _SUBJECT, _EXPECTED, name="bosphorus", holds=_holds_scans)


def _holds_scans(folder: Path) -> bool:
    return any(
        match[1] == folder.name.upper() for name in list_names(folder) if (match := _SCAN.fullmatch(name.upper()))
    )


def _find_subject(root: Path, subject: str, folder: Path, units: ActionUnits) -> list[ScanRecord]:
    with os.scandir(folder) as entries:
        files = {entry.name.upper(): folder / entry.name for entry in entries if not is_left_behind(entry.name)}
    records = []
    for name, path in sorted(files.items()):
        match = _SCAN.fullmatch(name)
        if match is None or match[1] != subject:
            continue
        stem = name.removesuffix(".BNT")
        texture = next((files[stem + suffix] for suffix in _TEXTURE_SUFFIXES if stem + suffix in files), None)
        landmarks = files.get(f"{stem}.LM3")
        shown = (match[3] or "").split("_")[0]
        records.append(
            ScanRecord(
                sample_id="bs" + stem[2:],
                subject=subject.lower(),
                source=relative(root, path),
                label=_LABELS.get(f"{match[2]}_{shown}", ""),
                task=match[2],
                texture=relative(root, texture) if texture else "",
                landmarks=relative(root, landmarks) if landmarks else "",
                aus=units.values_of("bs" + stem[2:]),
            )
        )
    return records


def read_bosphorus_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads a grid as a mesh, with the picture and the landmarks that stand beside it.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    path = root / record.source
    grid = read_bnt(path)
    try:
        mesh = bnt_to_mesh(grid)
    except ScanError as error:
        raise ScanError(f"{path}: {error}") from error
    return replace(
        mesh,
        texture=read_image(root / record.texture) if record.texture else None,
        landmarks_mm=read_lm3(root / record.landmarks) if record.landmarks else None,
    )


def summarise_bosphorus(root: Path, records: Sequence[ScanRecord]) -> list[str]:
    """What a partial copy lacks; which subjects lack an expression (so it is in the whole data set, too)."""
    subjects = _find_subjects(root)
    shown: dict[str, set[str]] = {}
    for record in records:
        shown.setdefault(record.subject, set()).add(record.label)
    whole = sum(labels >= set(EXPRESSIONS[:-1]) for labels in shown.values())
    return [
        *describe_counts(records, subjects=105, scans=4666),
        *describe_lacking(records, "pictures", lambda record: not record.texture),
        *describe_lacking(records, "landmarks (.lm3)", lambda record: not record.landmarks),
        f"{whole} of {len(shown)} subjects show all six expressions",
        *describe_action_units(root, find_action_units(root, subjects.base, _SUBJECT), records),
        *describe_archives(root, subjects),
    ]


BOSPHORUS = DatasetReader(
    name="bosphorus",
    title="Bosphorus",
    licence="Bosphorus: licensed by Boğaziçi University for research; faces may only be shown as its agreement allows",
    class_names=EXPRESSIONS,
    find=find_bosphorus,
    read=read_bosphorus_scan,
    source_files=find_scan_files,
    num_landmarks=NUM_BOSPHORUS_LANDMARKS,
    landmark_groups=BOSPHORUS_LANDMARK_GROUPS,
    au_names=AU_NAMES,
    summarise=summarise_bosphorus,
)
