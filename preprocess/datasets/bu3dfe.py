"""BU-3DFE: 100 subjects, 25 static scans each.

Yin et al. 2006, "A 3D facial expression database for facial behavior research".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from preprocess.datasets.bu_scan import PSE_SUFFIX, find_bu_files, read_bu_scan
from preprocess.datasets.completeness import describe_counts, describe_lacking
from preprocess.datasets.scan import DatasetReader, ScanRecord
from preprocess.datasets.subject_folders import (
    Subjects,
    describe_archives,
    find_subject_folders,
    is_left_behind,
    list_names,
    relative,
)
from preprocess.readers.bnd import BU_LANDMARK_GROUPS, NUM_BU_LANDMARKS, PSE_LANDMARK_GROUPS
from shared.labels import BU3DFE_CODES, EXPRESSIONS

_EXPECTED = "F0001/F0001_AN01WH_F3D.wrl"
_SUBJECT = re.compile(r"[FM]\d{4}", re.IGNORECASE)
# Subject, expression, intensity, race, and the kind of scan.
_SCAN = re.compile(r"([FM]\d{4})_([A-Z]{2})(\d{2})([A-Z]{2})_(F3D|RAW)\.WRL")


def find_bu3dfe(root: Path) -> list[ScanRecord]:
    """Every scan, by subject and name. A cropped face (F3D) goes before the raw scan (RAW).

    Raises:
        FacetError: the root holds no BU-3DFE.
    """
    return [
        record
        for subject, folder in _find_subjects(root).folders.items()
        for record in _find_subject(root, subject, folder)
    ]


def _find_subjects(root: Path) -> Subjects:
    return find_subject_folders(root, _SUBJECT, _EXPECTED, name="bu3dfe", holds=_holds_scans)


def _holds_scans(folder: Path) -> bool:
    return any(
        match[1] == folder.name.upper() for name in list_names(folder) if (match := _SCAN.fullmatch(name.upper()))
    )


def _find_subject(root: Path, subject: str, folder: Path) -> list[ScanRecord]:
    files = {path.name.upper(): path for path in sorted(folder.iterdir()) if not is_left_behind(path.name)}
    records: dict[str, ScanRecord] = {}
    for name, path in sorted(files.items()):  # …_F3D before …_RAW
        match = _SCAN.fullmatch(name)
        if match is None or match[1] != subject or match[2] not in BU3DFE_CODES:
            continue
        sample_id = name.rsplit("_", 1)[0]
        if sample_id in records:
            continue
        texture = files.get(f"{sample_id}_F3D.BMP")  # RAW scans use it, too
        landmarks = files.get(f"{sample_id}_{'F3D.BND' if match[5] == 'F3D' else 'RAW.PSE'}")  # RAW is placed elsewhere
        records[sample_id] = ScanRecord(
            sample_id=sample_id,
            subject=subject,
            source=relative(root, path),
            label=BU3DFE_CODES[match[2]],
            intensity=match[3],
            texture=relative(root, texture) if texture else "",
            landmarks=relative(root, landmarks) if landmarks else "",
            groups=(("sex", subject[0]), ("race", match[4])),
        )
    return list(records.values())


def _is_raw(record: ScanRecord) -> bool:
    return record.source.upper().endswith("_RAW.WRL")


def summarise_bu3dfe(root: Path, records: Sequence[ScanRecord]) -> list[str]:
    """What a partial copy lacks."""
    raw = [record for record in records if _is_raw(record)]
    faces = [record for record in records if not _is_raw(record)]
    return [
        *describe_counts(records, subjects=100, scans=2500),
        *describe_lacking(records, "pictures (_F3D.bmp)", lambda record: not record.texture),
        *describe_lacking(faces, "landmarks (_F3D.bnd)", lambda record: not record.landmarks),
        *([f"{len(raw):,} raw scans stand in for cropped faces (_F3D.wrl) that are not there"] if raw else []),
        *describe_lacking(raw, "landmarks (_RAW.pse)", lambda record: not record.landmarks, unit="raw scans"),
        *describe_archives(root, _find_subjects(root)),
    ]


BU3DFE = DatasetReader(
    name="bu3dfe",
    title="BU-3DFE",
    licence="BU-3DFE: licensed by Binghamton University for research; faces may only be shown as its agreement allows",
    class_names=EXPRESSIONS,
    find=find_bu3dfe,
    read=read_bu_scan,
    source_files=find_bu_files,
    num_landmarks=NUM_BU_LANDMARKS,
    landmark_groups=BU_LANDMARK_GROUPS,
    # Behind the 83 of a .bnd file, of which none is known then: a cache keeps these 83.
    other_landmark_groups={
        PSE_SUFFIX: {
            name: tuple(NUM_BU_LANDMARKS + i for i in indices) for name, indices in PSE_LANDMARK_GROUPS.items()
        }
    },
    summarise=summarise_bu3dfe,
)
