"""BU-3DFE: 100 subjects, 25 static scans each.

Yin et al. 2006, "A 3D facial expression database for facial behavior research".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from preprocess.datasets.bu_scan import PSE_SUFFIX, read_bu_scan
from preprocess.datasets.completeness import describe_counts, describe_lacking
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord, name_other_scan
from preprocess.datasets.subject_folders import (
    describe_archives,
    describe_strange,
    find_subject_folders,
    holds_scans,
    list_files,
)
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bu_landmarks import BU_LANDMARK_GROUPS, NUM_BU_LANDMARKS, PSE_LANDMARK_GROUPS
from preprocess.readers.vrml import read_texture_names
from shared.labels import BU3DFE_CODES, EXPRESSIONS

_EXPECTED = "F0001/F0001_AN01WH_F3D.wrl"
_SUBJECT = re.compile(r"[FM]\d{4}", re.IGNORECASE)
# Subject, expression, intensity, race, and the kind of scan.
_SCAN = re.compile(rf"([FM]\d{{4}})_({'|'.join(BU3DFE_CODES)})(\d{{2}})([A-Z]{{2}})_(F3D|RAW)\.WRL")

_NAMED = re.compile(r"[FM]\d{4}_[A-Z]{2}\d{2}[A-Z]{2}", re.IGNORECASE)


def find_bu3dfe(root: Path) -> Listing:
    """List every scan, by subject and name. A cropped face (F3D) goes before the raw scan (RAW).

    Raises:
        FacetError: the root holds no BU-3DFE.
    """
    subjects = find_subject_folders(root, _SUBJECT, _EXPECTED, name="bu3dfe", holds=holds_scans(_SCAN))
    files = {subject: list_files(root, folder) for subject, folder in subjects.folders.items()}
    records = [record for subject, names in files.items() for record in _list_subject(subject, names)]
    left_out = describe_strange(files, ".WRL", _SCAN)
    return Listing(records, [*_describe_lacking(records), *left_out, *describe_archives(root, subjects)])


def _list_subject(subject: str, files: dict[str, str]) -> list[ScanRecord]:
    records: dict[str, ScanRecord] = {}
    for name, source in files.items():  # …_F3D before …_RAW
        match = _SCAN.fullmatch(name)
        if match is None or match[1] != subject:
            continue
        sample_id = name.rsplit("_", 1)[0]
        if sample_id in records:
            continue
        records[sample_id] = ScanRecord(
            sample_id=sample_id,
            subject=subject,
            source=source,
            label=BU3DFE_CODES[match[2]],
            intensity=match[3],
            texture=files.get(f"{sample_id}_F3D.BMP", ""),  # RAW scans use it, too
            # A RAW scan lies elsewhere in space than its F3D.
            landmarks=files.get(f"{sample_id}_{'F3D.BND' if match[5] == 'F3D' else 'RAW.PSE'}", ""),
            groups=(("sex", subject[0]), ("race", match[4])),
        )
    return list(records.values())


def read_bu3dfe_scan(root: Path, record: ScanRecord) -> Mesh:
    """Read a scan as `read_bu_scan`, with a note if its file names another one.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    mesh = read_bu_scan(root, record)
    named = b" ".join(read_texture_names(root / record.source)).decode("latin-1")
    return name_other_scan(mesh, record, named, _NAMED)


def _describe_lacking(records: Sequence[ScanRecord]) -> list[str]:
    raw = [record for record in records if record.source.upper().endswith("_RAW.WRL")]
    faces = [record for record in records if record.source.upper().endswith("_F3D.WRL")]
    return [
        *describe_counts(records, subjects=100, scans=2500),
        *describe_lacking(records, "pictures (_F3D.bmp)", lambda record: not record.texture),
        *describe_lacking(faces, "landmarks (_F3D.bnd)", lambda record: not record.landmarks),
        *([f"{len(raw):,} raw scans stand in for cropped faces (_F3D.wrl) that are not there"] if raw else []),
        *describe_lacking(raw, "landmarks (_RAW.pse)", lambda record: not record.landmarks, unit="raw scans"),
    ]


BU3DFE = DatasetReader(
    name="bu3dfe",
    title="BU-3DFE",
    licence="BU-3DFE: licensed by Binghamton University for research; faces may only be shown as its agreement allows",
    class_names=EXPRESSIONS,
    find=find_bu3dfe,
    read=read_bu3dfe_scan,
    num_landmarks=NUM_BU_LANDMARKS,
    landmark_groups=BU_LANDMARK_GROUPS,
    # Behind the 83 of a .bnd file, of which none is known then: a cache keeps these 83.
    other_landmark_groups={
        PSE_SUFFIX: {
            name: tuple(NUM_BU_LANDMARKS + i for i in indices) for name, indices in PSE_LANDMARK_GROUPS.items()
        }
    },
)
