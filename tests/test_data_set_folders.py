"""Copies of the data sets as people have them: nested, still packed, mixed up, or another data set under a name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_bosphorus import make_bosphorus
from test_bp4d import SEQUENCES, make_bp4d, write_frame, write_occurrence
from test_datasets import make_bu3dfe, make_bu4dfe, write_bnd
from test_fourdme import make_4dme, write_frames

from preprocess.datasets import DATASETS
from shared.errors import FacetError

MAKE: dict[str, Callable[[Path], Path]] = {
    "bu3dfe": make_bu3dfe, "bu4dfe": make_bu4dfe, "bp4d": make_bp4d, "bosphorus": make_bosphorus,
}  # fmt: skip
SUBJECT = {"bu3dfe": "F0001", "bu4dfe": "F001", "bp4d": f"{SEQUENCES}/F001", "bosphorus": "bs000"}


def make(name: str, root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    if name == "4dme":
        write_frames(root / "s1" / "c", range(1, 4))
        make_4dme(root, ["s1", "c", "Positive", 1, 2, 3, "12"])
        return (root / "labels.xlsx").rename(root / "4DME_labels.xlsx").parent
    return MAKE[name](root)


def summarise(name: str, root: Path) -> list[str]:
    reader = DATASETS[name]
    return list(reader.find(root).notes)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("deeper", ["BosphorusDB", "BosphorusDB/BosphorusDB", "www.cs.org/~a/data/set/copy"])
def test_a_copy_may_lie_deeper(tmp_path: Path, name: str, deeper: str) -> None:
    plain = DATASETS[name].find(make(name, tmp_path / "plain")).records
    make(name, tmp_path / "deep" / deeper)
    found = DATASETS[name].find(tmp_path / "deep").records
    assert [record.sample_id for record in found] == [record.sample_id for record in plain]
    assert [record.source for record in found] == [f"{deeper}/{record.source}" for record in plain]
    assert [bool(record.landmarks) for record in found] == [bool(record.landmarks) for record in plain]
    assert [record.aus for record in found] == [record.aus for record in plain]
    for record in found:
        assert all((tmp_path / "deep" / path).is_file() for path in (record.source, record.landmarks or record.source))


@pytest.mark.parametrize("name", MAKE)
def test_subjects_unpacked_into_folders_of_their_names(tmp_path: Path, name: str) -> None:
    root = make(name, tmp_path / "data")
    plain = [record.sample_id for record in DATASETS[name].find(root).records]
    subject = root / SUBJECT[name]
    subject.rename(tmp_path / "subject")
    subject.mkdir()
    (tmp_path / "subject").rename(subject / subject.name)
    assert [record.sample_id for record in DATASETS[name].find(root).records] == plain


@pytest.mark.parametrize("name", [*MAKE, "4dme"])
def test_another_data_set_is_named(tmp_path: Path, name: str) -> None:
    root = make(name, tmp_path / "data" / "copy").parent
    for other in [*MAKE, "4dme"]:
        if other != name:
            with pytest.raises(FacetError, match=rf"looked for .* it looks like {name} \(.*give that NAME"):
                DATASETS[other].find(root)


def test_bp4dplus_is_named_by_its_tasks(tmp_path: Path) -> None:
    root = make("bp4d", tmp_path)
    (root / SUBJECT["bp4d"] / "T10").mkdir()
    (root / SEQUENCES).rename(root / "2D+3D")
    with pytest.raises(FacetError, match=r"it looks like bp4dplus \(F001/T10\): give that NAME"):
        DATASETS["bu3dfe"].find(root)


@pytest.mark.parametrize("name", MAKE)
def test_a_subjects_folder_is_no_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(FacetError, match="is one subject's folder; give the folder that holds"):
        DATASETS[name].find(make(name, tmp_path) / SUBJECT[name])


@pytest.mark.parametrize("name", [*MAKE, "4dme"])
@pytest.mark.parametrize("archive", ["F001.zip", "F001.RAR", "all.7z.001", "all.tar.gz", "all.tgz", "all.z01"])
def test_archives_are_named(tmp_path: Path, name: str, archive: str) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / archive).write_bytes(b"PK")
    with pytest.raises(FacetError, match=rf"archives are not read, unpack them first \(copy/{archive}\)"):
        DATASETS[name].find(tmp_path)


@pytest.mark.parametrize("name", MAKE)
def test_archives_that_are_left_are_told(tmp_path: Path, name: str) -> None:
    root = make(name, tmp_path)
    subject = root / SUBJECT[name]
    (subject / "T3.zip").write_bytes(b"PK")
    (subject.parent / "M003.rar").write_bytes(b"PK")
    (line,) = [line for line in summarise(name, root) if "archives" in line]
    assert line.startswith("2 archives that are not unpacked") and "M003.rar" in line and "T3.zip" in line


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    for name in MAKE:
        with pytest.raises(FacetError, match="looked for"):
            DATASETS[name].find(tmp_path)


def test_subjects_in_two_places(tmp_path: Path) -> None:
    for part in ("part1", "part2"):
        make("bu4dfe", tmp_path / part)
    with pytest.raises(FacetError, match=r"subjects in several folders \(part1, part2\)"):
        DATASETS["bu4dfe"].find(tmp_path)


def test_the_landmarks_package_is_no_second_copy(tmp_path: Path) -> None:
    make("bu4dfe", tmp_path / "BU4DFE")
    for frame in range(3):
        write_bnd(tmp_path / "BU4DFE_BND_V1.1" / "BU4DFE_BND_V1.1" / "f001" / "ANGRY" / f"{frame + 1:03d}.bnd")
    records = [record for record in DATASETS["bu4dfe"].find(tmp_path).records if record.landmarks]
    assert [(record.sample_id, record.landmarks[-7:]) for record in records] == [
        ("F001/Angry/000", "001.bnd"), ("F001/Angry/001", "002.bnd"), ("F001/Angry/002", "003.bnd"),
    ]  # fmt: skip
    assert any(
        "numbered otherwise, matched in order: F001/Angry (001.bnd for 0)" in line
        for line in summarise("bu4dfe", tmp_path)
    )


# --- BP4D+ under BP4D's name ---


def bp4d_plus_subject(root: Path) -> None:
    shutil.copytree(root / SEQUENCES / "F001", root / SEQUENCES / "F024")


def bp4d_plus_man(root: Path) -> None:
    shutil.copytree(root / SEQUENCES / "F001", root / SEQUENCES / "m058")


def bp4d_plus_task(root: Path) -> None:
    write_frame(root / SEQUENCES / "F001" / "T10", "000")


def bp4d_plus_landmarks(root: Path) -> None:
    folder = root / "3DFeatures" / "FacialLandmarks"
    folder.mkdir()
    (folder / "F001_T1_0000.bndplus").write_text("1,2,3\n")


def bp4d_plus_codes(root: Path) -> None:
    write_occurrence(root / "AUCoding" / "AU_OCC" / "F042_T1.csv", {1: {12: 1}})


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (bp4d_plus_subject, r"subjects beyond F023 and M018 \(F024\)"),
        (bp4d_plus_man, r"subjects beyond F023 and M018 \(M058\)"),
        (bp4d_plus_task, r"tasks beyond T8 \(F001/T10\)"),
        (bp4d_plus_landmarks, r"\.bndplus files \(FacialLandmarks/F001_T1_0000\.bndplus\)"),
        (bp4d_plus_codes, r"action units of subjects or tasks beyond BP4D's \(F042/T1\)"),
    ],
)
def test_bp4d_plus_is_refused(tmp_path: Path, change: Callable[[Path], None], seen: str) -> None:
    root = make_bp4d(tmp_path)
    assert DATASETS["bp4d"].find(root).records
    change(root)
    with pytest.raises(FacetError, match=rf"this is BP4D\+ .*{seen}.*give the NAME bp4dplus"):
        DATASETS["bp4d"].find(root)


def test_bp4d_plus_that_shows_in_its_folders_name_alone(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    assert not any("BP4D+" in line for line in summarise("bp4d", root))
    (root / SEQUENCES).rename(root / "2D+3D")
    assert any("2D+3D: BP4D+ names its folder so" in line for line in summarise("bp4d", root))


@pytest.mark.parametrize("folder", ["Sequences(2D+3D)", "Sequences_2D+3D", "sequences"])
def test_names_of_the_sequences_folder(tmp_path: Path, folder: str) -> None:
    root = make_bp4d(tmp_path)
    (root / SEQUENCES).rename(root / folder)
    assert len(DATASETS["bp4d"].find(root).records) == 7


# --- what is said of landmarks is what was found ---


def geometry_line(root: Path) -> str:
    (line,) = [line for line in summarise("bp4d", root) if "aligned by geometry" in line]
    return line


def test_no_landmarks_were_read_where_there_are_none(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    for path in (root / "3DFeatures").rglob("*.tbnd"):
        path.rename(path.with_suffix(".txt"))
    assert geometry_line(root) == "no landmarks (3DFeatures, one .tbnd a frame) found; aligned by geometry"


@pytest.mark.parametrize(
    ("content", "why"), [("1 2 3\n", "84 lines|83 points"), ("", "none of their points was tracked")]
)
def test_landmarks_that_cannot_be_used(tmp_path: Path, content: str, why: str) -> None:
    import re

    root = make_bp4d(tmp_path)
    for path in (root / "3DFeatures").rglob("*.tbnd"):
        path.write_text(content)
    line = geometry_line(root)
    assert "none of those tried could be used" in line and re.search(why, line)


def test_an_empty_landmark_file_costs_no_frame(tmp_path: Path) -> None:
    root = make_bp4d(tmp_path)
    (root / "3DFeatures" / "F001" / "T1" / "0001.tbnd").write_text("")
    records = DATASETS["bp4d"].find(root).records
    mesh = DATASETS["bp4d"].read(root, records[1])
    assert mesh.notes == ("3DFeatures/F001/T1/0001.tbnd: the file is empty",)
    assert mesh.landmarks_mm is not None and np.isnan(mesh.landmarks_mm).all()
    (root / records[1].landmarks).write_text("0 0 0\n" * 84)  # the data set's mark of what could not be tracked
    assert DATASETS["bp4d"].read(root, records[1]).notes == ()
    assert DATASETS["bp4d"].read(root, records[0]).notes == ()
