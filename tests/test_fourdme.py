"""4DME from its label sheet and folders to rows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scan_folders import write_scan
from test_label_sheet import write_sheet

from preprocess.datasets import DATASETS
from preprocess.datasets.completeness import OWN_PICTURES
from preprocess.datasets.fourdme import AU_NAMES, find_4dme
from preprocess.datasets.fourdme_frames import parse_frame_pattern
from preprocess.datasets.scan import ScanRecord
from shared.errors import FacetError

READER = DATASETS["4dme"]
HEADER = ["sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs"]


def write_frames(folder: Path, numbers: range, name: str = "{:05d}.obj") -> None:
    """Empty files: listing opens none."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / name.format(number)
        path.touch()
        path.with_suffix(".jpg").touch()


def make_4dme(root: Path, *rows: list[Any]) -> Path:
    root.mkdir(exist_ok=True)
    write_sheet(root / "labels.xlsx", [HEADER, *rows])
    return root


def clips_of(records: Sequence[ScanRecord]) -> dict[str, list[int]]:
    clips: dict[str, list[int]] = {}
    for record in records:
        assert record.frame is not None
        clips.setdefault(record.sequence, []).append(record.frame)
    return clips


def summary(root: Path) -> list[str]:
    return list(READER.find(root).notes)


def test_a_clip_goes_from_onset_to_offset(tmp_path: Path) -> None:
    make_4dme(tmp_path, ["sub01", "clip1", "Negative", 3, 4, 6, "4+7(L)"])
    write_frames(tmp_path / "sub01" / "clip1", range(1, 9))
    records = find_4dme(tmp_path).records
    assert clips_of(records) == {"": [1, 2, 7, 8], "sub01/clip1": [3, 4, 5, 6]}
    inside, outside = records[2], records[0]
    assert (inside.sample_id, inside.label, inside.targets, inside.moments) == (
        "sub01/clip1/0003",
        "negative",
        (0, 1, 0, 0, 0),
        (3, 4, 6),
    )
    assert {name for name, value in zip(AU_NAMES, inside.aus, strict=True) if value} == {"AU4", "AU7"}
    assert (outside.label, outside.targets, outside.aus, outside.moments) == ("", (), (), (None, None, None))
    assert (inside.source, inside.texture) == ("sub01/clip1/00003.obj", "sub01/clip1/00003.jpg")
    assert READER.target_names == READER.class_names == ("positive", "negative", "surprise", "repression", "others")


@pytest.mark.parametrize(
    "emotion",
    [
        "Negative,Surprise",
        "surprise; NEGATIVE",
        "Negative / Surprise",
        "Negative+Surprise",
        "Surprise & Negative",
        "negative and surprise",
    ],
)
def test_several_emotions_are_targets_and_no_label(tmp_path: Path, emotion: str) -> None:
    make_4dme(tmp_path, ["sub01", "clip1", emotion, 1, 2, 3, None])
    write_frames(tmp_path / "sub01" / "clip1", range(1, 4))
    for record in find_4dme(tmp_path).records:
        assert (record.label, record.targets, record.aus) == ("", (0, 1, 1, 0, 0), ())


def test_a_line_an_emotion_is_the_same_clip(tmp_path: Path) -> None:
    make_4dme(tmp_path, ["s1", "c", "Negative", 1, 2, 3, "4"], ["s1", "c", "Other", 1, 2, 3, "R12"])
    write_frames(tmp_path / "s1" / "c", range(1, 4))
    (targets,) = {record.targets for record in find_4dme(tmp_path).records}
    assert targets == (0, 1, 0, 0, 1)
    assert {name for name, v in zip(AU_NAMES, find_4dme(tmp_path).records[0].aus, strict=True) if v} == {"AU4", "AU12"}


def test_several_clips_in_one_folder(tmp_path: Path) -> None:
    make_4dme(
        tmp_path,
        ["s1", "c", "Others", 6, 7, 8, ""],
        ["s1", "c", "Positive", 1, 2, 3, ""],
        ["s1", "c", "Surprise", 8, 8, 9, ""],
    )
    write_frames(tmp_path / "s1" / "c", range(1, 11))
    records = find_4dme(tmp_path).records
    assert clips_of(records) == {"s1/c/1-3": [1, 2, 3], "": [4, 5, 10], "s1/c/6-8": [6, 7, 8], "s1/c/8-9": [9]}
    assert len({record.sample_id for record in records}) == 10
    assert any("another clip has already" in line and "line 4" in line for line in summary(tmp_path))


@pytest.mark.parametrize("onset", [501, 3, 1])
def test_frames_counted_anew_within_the_clip(tmp_path: Path, onset: int) -> None:
    """The folder holds the clip cut out; the sheet counts from the video's start."""
    make_4dme(tmp_path, ["s1", "c", "Positive", onset, onset + 2, onset + 4, ""])
    write_frames(tmp_path / "s1" / "c", range(5))
    records = find_4dme(tmp_path).records
    assert clips_of(records) == {"s1/c": [0, 1, 2, 3, 4]}
    assert records[0].moments == (0, 2, 4)
    (tmp_path / "s1" / "c" / "take2_0003.obj").write_text("")
    assert find_4dme(tmp_path).records == records
    assert "1 files left out, as another has their frame number: s1/c/take2_0003.obj" in summary(tmp_path)
    assert any(line.startswith("frames counted anew") for line in summary(tmp_path))


def test_moments_that_are_not_given_or_do_not_fit(tmp_path: Path) -> None:
    make_4dme(
        tmp_path,
        ["s1", "none", "Positive", None, "/", "", ""],
        ["s1", "onset", "Positive", 3, None, None, ""],
        ["s1", "elsewhere", "Positive", 901, 902, 903, ""],
        ["s1", "wrong", "Positive", 4, 2, 3, ""],
    )
    for clip in ("none", "onset", "elsewhere", "wrong"):
        write_frames(tmp_path / "s1" / clip, range(1, 6))
    records = {record.sequence: record for record in find_4dme(tmp_path).records}
    assert clips_of(find_4dme(tmp_path).records) == {
        "s1/none": [1, 2, 3, 4, 5],
        "": [1, 2],
        "s1/onset": [3, 4, 5],
        "s1/elsewhere": [1, 2, 3, 4, 5],
        "s1/wrong": [1, 2, 3, 4, 5],
    }
    assert records["s1/onset"].moments == (3, None, None)
    assert records["s1/elsewhere"].moments == records["s1/wrong"].moments == (None, None, None)
    lines = "\n".join(summary(tmp_path))
    assert "no frame between onset and offset: 1 clips, s1/elsewhere (line 4)" in lines
    assert "not in this order, taken as not given: 1 clips, s1/wrong (line 5)" in lines


def test_a_partial_copy(tmp_path: Path) -> None:
    make_4dme(tmp_path, ["s1", "c", "Fear", 1, 2, 4, "99"], ["s1", "d", "Positive", 1, 2, 3, ""])
    write_frames(tmp_path / "s1" / "c", range(1, 4))
    (tmp_path / "s1" / "c" / "00002.jpg").unlink()
    assert {record.label for record in find_4dme(tmp_path).records} == {""}
    assert summary(tmp_path) == [
        "a part of the data set: 1 of 24 subjects, 1 of 267 sequences",
        f"1 frames without {OWN_PICTURES}: s1/c/0002",
        "no emotion of positive, negative, surprise, repression, others: 1 clips, s1/c (line 2: fear)",
        "action units that are not kept: 1 clips, s1/c (line 2: 99)",
        "some frames between onset and offset missing: 1 clips, s1/c (line 2)",
        "no frames: 1 clips, s1/d (line 3)",
    ]


@pytest.mark.parametrize("folder", ["S01/clip_a", "3D/01/Clip_A", "meshes/sub_001/clip_a", "1/clip_a"])
def test_folders_are_found_by_name_and_number(tmp_path: Path, folder: str) -> None:
    make_4dme(tmp_path, [1.0, "clip_a", "Positive", 10, 10, 11, ""])
    write_frames(tmp_path / folder, range(10, 12), "take2_frame{:d}_x.PLY")
    write_frames(tmp_path / "video1" / "clip_a", range(10, 12))  # the 1 of something else
    records = find_4dme(tmp_path).records
    assert [(r.subject, r.sequence, r.source) for r in records] == [
        ("1", "1/clip_a", f"{folder}/take2_frame{number}_x.PLY") for number in (10, 11)
    ]


@pytest.mark.parametrize(
    ("pattern", "folder", "name"),
    [
        ("Meshes/{subject}/{clip}/*_{frame}.obj", "Meshes/s1/c", "neutral7_{:03d}.obj"),
        ("{subject}-{clip}/{frame}", "s1-c", "{:d}.obj"),
        ("*/{subject}_{clip}_{frame}.obj", "all", "S1_C_{:04d}.obj"),
    ],
)
def test_the_users_pattern(tmp_path: Path, pattern: str, folder: str, name: str) -> None:
    make_4dme(tmp_path, ["s1", "c", "Positive", 1, 2, 3, ""])
    write_frames(tmp_path / folder, range(1, 4), name)
    write_frames(tmp_path / folder, range(1, 4), "wrong_{:03d}_.obj")
    reader = pickle.loads(pickle.dumps(READER.with_option("--pattern", pattern)))  # workers get it by pickle
    assert [record.source for record in reader.find(tmp_path).records] == [
        f"{folder}/{name.format(n)}" for n in (1, 2, 3)
    ]
    assert list(reader.find(tmp_path).notes) == ["a part of the data set: 1 of 24 subjects, 1 of 267 sequences"]


@pytest.mark.parametrize(
    "pattern",
    [
        "{subject}/{frame}.obj",
        "{subject}/{clip}/x.obj",
        "{frame}/{subject}/{clip}/{frame}.obj",
        "../{subject}/{clip}/{frame}",
        "/{subject}/{clip}/{frame}",
        "C:/{subject}/{clip}/{frame}",
        "{subject}/{clip}/{frame}{frame}",
        "{subject}/{clip}/{take}_{frame}",
    ],
)
def test_patterns_that_cannot_be(pattern: str) -> None:
    with pytest.raises(FacetError, match="pattern"):
        parse_frame_pattern(pattern)


def test_names_in_the_sheet_lead_nowhere_else(tmp_path: Path) -> None:
    root = make_4dme(
        tmp_path / "data", ["..", "secret", "Positive", 1, 1, 1, ""], ["s1/../..", "secret", "Positive", 1, 1, 1, ""]
    )
    write_frames(tmp_path / "secret", range(1, 2))
    with pytest.raises(FacetError, match="no frames of the 2 folders"):
        find_4dme(root)


def test_real_frames_are_read(tmp_path: Path) -> None:
    make_4dme(tmp_path, ["s1", "c", "Repression", 1, 1, 1, ""])
    (tmp_path / "s1" / "c").mkdir(parents=True)
    write_scan(tmp_path / "s1" / "c", "001", 3.0)
    (record,) = READER.find(tmp_path).records
    mesh = READER.read(tmp_path, record)
    assert mesh.texture is not None and mesh.landmarks_mm is None
    assert [path.name for path in READER.source_files(tmp_path, record)] == ["001.obj", "001.png"]
    (tmp_path / "s1" / "c" / "001.mtl").write_text("newmtl skin\n")  # the picture of its name counts all the same
    assert READER.read(tmp_path, record).texture is not None
    (tmp_path / "s1" / "c" / "001.png").rename(tmp_path / "s1" / "c" / "skin.png")
    (tmp_path / "s1" / "c" / "001.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    (record,) = READER.find(tmp_path).records
    assert record.texture == "" and READER.read(tmp_path, record).texture is not None
    assert [path.name for path in READER.source_files(tmp_path, record)] == ["001.obj", "001.mtl", "skin.png"]


def test_every_unit_has_its_column(tmp_path: Path) -> None:
    """Those of the upper and lower face and of the jaw, in the order of the FACS manual; eyes shut and blinks."""
    units = [1, 2, *range(4, 8), *range(9, 19), 20, *range(22, 29), 38, 39, 43, 45]
    assert list(AU_NAMES) == [f"AU{unit}" for unit in units]
    make_4dme(tmp_path, *(["s1", f"c{unit}", "Others", 1, 1, 1, f"{unit}+99"] for unit in units))
    for unit in units:
        write_frames(tmp_path / "s1" / f"c{unit}", range(1, 2))
    shown = {record.sequence: record.aus for record in find_4dme(tmp_path).records}
    for place, unit in enumerate(units):
        assert shown[f"s1/c{unit}"] == tuple(int(k == place) for k in range(28))


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="no such folder"):
        find_4dme(tmp_path / "none")
    with pytest.raises(FacetError, match=r"label sheet \(\.xlsx\) with the columns sub_ID.*empty"):
        find_4dme(tmp_path)
    write_sheet(tmp_path / "other.xlsx", [["a", "b"], [1, 2]])
    with pytest.raises(FacetError, match=r"none of other\.xlsx has them"):
        find_4dme(tmp_path)
    (tmp_path / "other.xlsx").write_bytes(b"PK\3\4 cut short")
    with pytest.raises(FacetError, match=r"other\.xlsx: "):  # of no matter below, where another file is the sheet
        find_4dme(tmp_path)
    make_4dme(tmp_path, ["s1", "c", "Positive", 1, 2, 3, ""])
    (tmp_path / "~$labels.xlsx").write_text("a spreadsheet program's lock")
    with pytest.raises(FacetError, match=r"no frames of the 1 folders in labels\.xlsx.*--pattern"):
        find_4dme(tmp_path)
    make_4dme(tmp_path, ["s1", "", "Positive", 1, 2, 3, ""])
    with pytest.raises(FacetError, match=r"labels\.xlsx: none of its 1 lines names a subject and a folder"):
        find_4dme(tmp_path)
    make_4dme(tmp_path, ["s1", "c", "Positive", "soon", 2, 3, ""])
    with pytest.raises(FacetError, match=r"line 2: Onset 'soon'"):
        find_4dme(tmp_path)
    (tmp_path / "more").mkdir()
    make_4dme(tmp_path / "more", ["s1", "c", "Positive", 1, 2, 3, ""])
    with pytest.raises(FacetError, match=r"several label sheets \(labels\.xlsx, more/labels\.xlsx\)"):
        find_4dme(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{clip}/*{frame}.obj", "S13_{:05d}.obj"),
        ("*/{clip}/{frame}", "{:d}.obj"),
        ("{clip}/*_{frame}.obj", "a_1_{:03d}.obj"),
    ],
)
def test_clips_folders_without_the_subject(tmp_path: Path, pattern: str, name: str) -> None:
    base = tmp_path / "Meshes" if pattern.startswith("*") else tmp_path
    make_4dme(
        tmp_path, ["S13", "S13_1st_001_01_1", "Positive", 10, 11, 12, ""], ["S14", "S14_x", "Others", 1, 1, 2, ""]
    )
    write_frames(base / "S13_1st_001_01_1", range(9, 14), name)
    write_frames(base / "s14_X", range(1, 3), name)
    with pytest.raises(FacetError, match=r"--pattern '(Meshes/)?\{clip\}/\*\{frame\}'"):
        find_4dme(tmp_path)
    clips = clips_of(find_4dme(tmp_path, pattern=parse_frame_pattern(pattern)).records)
    assert clips == {"": [9, 13], "S13/S13_1st_001_01_1": [10, 11, 12], "S14/S14_x": [1, 2]}


def test_one_folder_of_two_people_needs_the_subject(tmp_path: Path) -> None:
    make_4dme(tmp_path, ["S13", "clip1", "Positive", 1, 1, 2, ""], ["S14", "clip1", "Others", 1, 1, 2, ""])
    write_frames(tmp_path / "clip1", range(1, 3))
    with pytest.raises(FacetError, match=r"both lead to clip1/00001\.obj.* --pattern with \{subject\}"):
        find_4dme(tmp_path, pattern=parse_frame_pattern("{clip}/{frame}"))
