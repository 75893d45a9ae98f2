"""What partial copies lack, in lines for the user."""

from __future__ import annotations

from pathlib import Path

import pytest
from scan_folders import write_scan_folder
from test_bp4d import make_bp4d
from test_datasets import make_bu3dfe, make_bu4dfe, write_bnd
from test_fourdme import make_4dme, write_frames

from preprocess.datasets import DATASETS
from preprocess.datasets.completeness import (
    OWN_PICTURES,
    describe_counts,
    describe_gaps,
    describe_lacking,
    describe_missing,
)
from preprocess.datasets.scan import ScanRecord
from shared.errors import name_some


def frames(sequence: str, numbers: list[int], texture: str = "a.jpg") -> list[ScanRecord]:
    return [
        ScanRecord(f"{sequence}/{n}", sequence[:2], f"{sequence}/{n}.obj", sequence=sequence, frame=n, texture=texture)
        for n in numbers
    ]


def summarise(name: str, root: Path) -> list[str]:
    reader = DATASETS[name]
    return list(reader.find(root).notes)


def test_nothing_is_said_of_a_whole_copy() -> None:
    records = frames("s1/a", [1, 2, 3]) + frames("s2/a", [5])
    assert describe_counts(records, subjects=2, scans=4, sequences=2) == []
    assert describe_counts(records, subjects=1) == []  # more than the data set is said to have
    assert describe_lacking(records, "pictures", lambda record: not record.texture) == []
    assert describe_gaps(records) == []


def test_whole_sequences_are_named_as_such() -> None:
    records = frames("s1/a", [1, 2], "") + frames("s1/b", [1]) + frames("s2/a", [1, 3], "") + frames("s2/a", [2])
    assert describe_counts(records, subjects=3, scans=6, sequences=10) == [
        "a part of the data set: 2 of 3 subjects, 3 of 10 sequences"
    ]
    assert describe_lacking(records, "pictures", lambda record: not record.texture, unit="frames") == [
        "1 sequences without pictures: s1/a",
        "2 frames without pictures: s2/a/1, s2/a/3",
    ]
    assert describe_lacking(records[:2], "pictures", lambda record: not record.texture) == ["no pictures found"]
    assert describe_gaps(records[:4] + records[5:]) == []
    assert describe_gaps([record for record in records if record.frame != 2]) == [
        "1 sequences with frames left out: s2/a"
    ]


def test_a_sequence_that_others_have_is_missed() -> None:
    def record(subject: str, task: str) -> ScanRecord:
        return ScanRecord(f"{subject}/{task}/0", subject, "a.obj", sequence=f"{subject}/{task}", frame=0, task=task)

    records = [record(f"F{i}", task) for i in range(5) for task in ("T1", "T2", "T3")]
    assert describe_missing(records) == []
    lost = [r for r in records if r.sequence not in ("F1/T2", "F4/T3")]
    assert describe_missing(lost) == ["2 sequences missing that most subjects have: F1/T2, F4/T3"]
    assert describe_missing([*records, record("F0", "T4"), record("F1", "T4")]) == []  # two of five: a choice


def test_of_many_names_the_first_few() -> None:
    assert name_some([str(i) for i in range(2000)]) == "0, 1, 2, 3, 4, 5 and 1,994 more"


def test_bu3dfe(tmp_path: Path) -> None:
    root = make_bu3dfe(tmp_path)
    (root / "M0002" / "M0002_AN01WH_F3D.wrl").unlink()
    (root / "F0001" / "F0001_AN01WH_F3D.bmp").unlink()
    assert summarise("bu3dfe", root) == [
        "a part of the data set: 2 of 100 subjects, 8 of 2,500 scans",
        "1 scans without pictures (_F3D.bmp): F0001_AN01WH",
        "1 raw scans stand in for cropped faces (_F3D.wrl) that are not there",
        "no landmarks (_RAW.pse) found",
        "2 meshes that are left out, by their names: F0001/F0001_XX01WH_F3D.wrl, F0001/F0009_AN01WH_F3D.wrl",
    ]


def test_bu4dfe(tmp_path: Path) -> None:
    root = make_bu4dfe(tmp_path)
    (root / "F001" / "Happy" / "001.wrl").unlink()
    assert summarise("bu4dfe", root) == [
        "a part of the data set: 2 of 101 subjects, 3 of 606 sequences",
        "1 sequences with frames left out: F001/Happy",
        f"1 sequences without {OWN_PICTURES}: M002/Surprise",
        "no landmarks (BU4DFE_BND) found",
        "1 folders with scans that are left out, by their names: BU_WrlViewer_V2/",
    ]


@pytest.mark.parametrize("named", ["", "manifest.csv"])
def test_folder(tmp_path: Path, named: str) -> None:
    write_scan_folder(tmp_path, 3)
    assert summarise("folder", tmp_path / named) == []
    (tmp_path / "scan001.obj").unlink()
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("scan002.obj,S02,anger", "scan002.obj,S02,"))
    assert summarise("folder", tmp_path / named) == [
        "1 scans without mesh files: scan001",
        "1 scans without labels: scan002",
    ]


@pytest.mark.parametrize("name", ["bu3dfe", "bu4dfe", "bp4d", "4dme"])
def test_what_systems_leave_behind_is_no_data(tmp_path: Path, name: str) -> None:
    """macOS writes a ._ file beside each on other disks, and __MACOSX into zips; Windows Thumbs.db."""
    root = tmp_path / "data"
    root.mkdir()
    if name == "4dme":
        make_4dme(root, ["s1", "c", "Positive", 1, 2, 3, "12"])
        write_frames(root / "parts" / "s1" / "c", range(1, 4))
    else:
        {"bu3dfe": make_bu3dfe, "bu4dfe": make_bu4dfe, "bp4d": make_bp4d}[name](root)
    if name == "bu4dfe":
        write_bnd(root / "BU4DFE_BND_V1.1" / "F001" / "Angry" / "000.bnd")
    reader = DATASETS[name]
    records, notes = reader.find(root).records, summarise(name, root)
    for path in [path for path in sorted(root.rglob("*")) if path.is_file()]:
        zipped = root / "__MACOSX" / path.relative_to(root).parent
        zipped.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, zipped):
            (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(60))
            (folder / ".DS_Store").touch()
            (folder / "Thumbs.db").touch()
    assert reader.find(root).records == records
    assert summarise(name, root) == notes
