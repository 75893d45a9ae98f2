"""Synthetic faces: the data sets' byte layout, determinism, and what each expression does to a face."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_layouts import LEFT_EYE, digests

from preprocess.datasets import DATASETS
from preprocess.synth.bu3dfe import MAX_MEN, MAX_WOMEN
from preprocess.synth.bu4dfe import expression_course
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import name_subjects, write_population
from preprocess.synth.sheet import grid_triangles
from shared.errors import FacetError

NUM_FRAMES = 7


@pytest.fixture(scope="module")
def bu3dfe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bu3dfe") / "data"
    assert write_population(LAYOUTS["bu3dfe"], root, num_subjects=2, seed=5, progress=False, num_workers=1) == 50
    return root


@pytest.fixture(scope="module")
def bu4dfe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bu4dfe") / "data"
    num_scans = write_population(
        LAYOUTS["bu4dfe"], root, num_subjects=1, num_frames=NUM_FRAMES, progress=False, num_workers=1
    )
    assert num_scans == 6 * NUM_FRAMES
    return root


def inline_rows(text: str, keyword: str, width: int) -> np.ndarray:
    """The numbers of the block after `keyword … [`, read by nothing but splitting: independent of our reader."""
    block = text[text.index("[", text.index(keyword)) + 1 :]
    numbers = block[: block.index("]")].replace(",", " ").split()
    return np.array(numbers, float).reshape(-1, width)


def test_bu3dfe_has_25_scans_a_subject_named_as_in_the_data_set(bu3dfe: Path) -> None:
    for subject in ("F0001", "M0001"):
        scans = sorted(path.name for path in (bu3dfe / subject).glob("*.wrl"))
        races = {name[10:12] for name in scans}
        assert len(races) == 1
        assert races <= {"WH", "AM"}
        expected = {f"{code}{level:02d}" for code in ("AN", "DI", "FE", "HA", "SA", "SU") for level in range(1, 5)}
        assert {name[6:10] for name in scans} == expected | {"NE00"}
        for name in scans:
            assert re.fullmatch(subject + r"_[A-Z]{2}0[0-4][A-Z]{2}_F3D\.wrl", name)
            assert (bu3dfe / subject / name).with_suffix(".bmp").is_file()


def test_names_say_what_people_are_like(bu3dfe: Path, bu4dfe: Path) -> None:
    for record in DATASETS["bu3dfe"].find(bu3dfe).records:
        assert dict(record.groups) == {"sex": record.subject[0], "race": record.sample_id[-2:]}
    assert {record.groups for record in DATASETS["bu4dfe"].find(bu4dfe).records} == {(("sex", "F"),)}


def test_bu3dfe_wrl_is_laid_out_byte_for_byte(bu3dfe: Path) -> None:
    lines = next((bu3dfe / "F0001").glob("*_HA03*.wrl")).read_text().split("\n")
    assert lines[0].startswith("#VRML V2.0")
    assert lines[17:19] == ["coord Coordinate {", "point ["]
    last = lines.index("]")
    vertices = lines[19:last]
    assert len(vertices) >= 8000
    number = r"-?\d+\.\d+"
    assert all(re.fullmatch(f"{number} {number} {number},", row) for row in vertices[:-1])
    assert re.fullmatch(f"{number} {number} {number}", vertices[-1])
    start = lines.index("coordIndex [") + 1
    triangles = lines[start : lines.index("]", start)]
    assert len(triangles) == len(grid_triangles()) >= 16000
    assert all(re.fullmatch(r"\d+ \d+ \d+ -1,", row) for row in triangles)
    assert max(max(map(int, row.split()[:3])) for row in triangles) == len(vertices) - 1
    order = [lines.index(word) for word in ("coordIndex [", "texCoord TextureCoordinate {", "texCoordIndex [")]
    assert order == sorted(order)


def test_bnd_rows_repeat_the_vertex_they_name(bu3dfe: Path) -> None:
    for path in sorted((bu3dfe / "M0001").glob("*.bnd"))[::6]:
        vertices = inline_rows(path.with_suffix(".wrl").read_text(), "coord Coordinate", 3)
        rows = path.read_text().splitlines()
        assert len(rows) == 83
        for row in rows:
            index, point = row.split("\t\t")
            assert np.array_equal(np.array(point.split(" "), float), vertices[int(index)])


def test_bu4dfe_shares_lines_and_keeps_landmarks_in_a_package_of_their_own(bu4dfe: Path) -> None:
    folders = {path.name for path in (bu4dfe / "F001").iterdir() if path.is_dir()}
    assert folders == {"Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise"}
    assert (bu4dfe / "BU_WrlViewer_V2").is_dir()
    names = [f"{frame:03d}" for frame in range(NUM_FRAMES)]
    for folder in folders:
        assert sorted(path.stem for path in (bu4dfe / "F001" / folder).glob("*.wrl")) == names
        package = bu4dfe / "BU4DFE_BND_V1.1" / "F001" / folder
        assert sorted(path.stem for path in package.glob("*.bnd")) == names
        for name in names:
            with Image.open(bu4dfe / "F001" / folder / f"{name}.jpg") as image:
                assert image.format == "JPEG"
    text = (bu4dfe / "F001" / "Fear" / "003.wrl").read_text()
    assert re.search(r"texCoord TextureCoordinate \{ point \[", text)
    assert re.search(r"coordIndex \[ \d+,\d+,\d+,-1,", text)
    vertices = inline_rows(text, "coord Coordinate", 3)
    rows = (bu4dfe / "BU4DFE_BND_V1.1" / "F001" / "Fear" / "003.bnd").read_text().splitlines()
    landmark_rows = np.array([row.split() for row in rows], float)
    assert landmark_rows.shape == (83, 4)
    assert np.array_equal(landmark_rows[:, 1:], vertices[landmark_rows[:, 0].astype(int)])


def test_the_textures_are_pictures_of_the_faces_own_colours(bu3dfe: Path) -> None:
    images = {
        path.name: np.asarray(Image.open(io.BytesIO(path.read_bytes())))
        for path in (bu3dfe / "F0001").glob("*.bmp")
        if "NE00" in path.name or "SU04" in path.name
    }
    assert len(images) == 2
    neutral, surprised = (images[name] for name in sorted(images))
    assert neutral.ndim == 3
    assert neutral.std() > 20
    assert not np.array_equal(neutral, surprised)


def test_equal_seeds_give_equal_bytes_for_any_number_of_processes_and_subjects(bu3dfe: Path, tmp_path: Path) -> None:
    write_population(LAYOUTS["bu3dfe"], tmp_path / "more", num_subjects=3, seed=5, progress=False, num_workers=2)
    one, more = digests(bu3dfe), digests(tmp_path / "more")
    assert one.items() <= more.items()
    assert any(name.startswith("F0002") for name in more)


def test_a_finished_data_set_is_left_as_it_is(bu3dfe: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bu3dfe.rglob("*")}
    assert write_population(LAYOUTS["bu3dfe"], bu3dfe, num_subjects=2, seed=5, progress=False, num_workers=1) == 50
    assert {path: path.stat().st_mtime_ns for path in bu3dfe.rglob("*")} == before


def test_a_folder_with_anything_else_is_refused_and_untouched(bu3dfe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FacetError, match="not empty"):
        write_population(LAYOUTS["bu3dfe"], tmp_path, num_subjects=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(FacetError, match="another synthetic data set"):
        write_population(LAYOUTS["bu3dfe"], bu3dfe, num_subjects=2, seed=6, progress=False)
    with pytest.raises(FacetError, match="another synthetic data set"):
        write_population(LAYOUTS["bu4dfe"], bu3dfe, num_subjects=2, seed=5, progress=False)


def test_more_subjects_than_names_are_refused(tmp_path: Path) -> None:
    names = name_subjects(MAX_WOMEN, MAX_MEN, num_digits=4)
    assert len(set(names)) == 100
    assert {"F0056", "M0044"} <= set(names)
    with pytest.raises(FacetError, match="100"):
        write_population(LAYOUTS["bu3dfe"], tmp_path, num_subjects=101, progress=False)
    with pytest.raises(FacetError, match="101"):
        write_population(LAYOUTS["bu4dfe"], tmp_path, num_subjects=102, progress=False)
    with pytest.raises(FacetError, match="frames"):
        write_population(LAYOUTS["bu4dfe"], tmp_path, num_subjects=1, num_frames=2, progress=False)


@pytest.mark.parametrize("num_frames", [3, 8, 24, 100])
def test_sequences_go_from_neutral_to_the_apex_and_back(num_frames: int) -> None:
    for seed in range(20):
        course = expression_course(num_frames, np.random.default_rng(seed))
        apex = int(course.argmax())
        assert course[0] == course[-1] == 0
        assert course[apex] == 1
        assert (np.diff(course[: apex + 1]) >= 0).all()
        assert (np.diff(course[apex:]) <= 1e-12).all()


def test_the_written_frames_show_that_course(bu4dfe: Path) -> None:
    """Surprise, from the files alone: the chin's distance from the brow grows, then shrinks back."""
    package = bu4dfe / "BU4DFE_BND_V1.1" / "F001" / "Surprise"
    distances = []
    for path in sorted(package.glob("*.bnd")):
        points = np.loadtxt(path)[:, 1:]
        distances.append(np.linalg.norm(points[LEFT_EYE].mean(0) - points[75]))
    apex = int(np.argmax(distances))
    assert 0 < apex < NUM_FRAMES - 1
    assert distances[apex] > distances[0] + 8
    assert abs(distances[-1] - distances[0]) < 1.0
