"""Synthetic 4DME: clips of micro-expressions and the sheet that labels them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.ndimage import uniform_filter
from scipy.spatial.transform import Rotation
from written_layouts import check_build, copy_part, digests, obj_colours, parse_obj

from preprocess.synth.fourdme import draw_clips
from preprocess.synth.label_sheet import encode_sheet
from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from preprocess.synth.sheet import grid_shape

ME_FRAMES = 12


@pytest.fixture(scope="module")
def fourdme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("4dme") / "data"
    num_scans = write_population(
        LAYOUTS["4dme"], root, num_subjects=2, num_frames=ME_FRAMES, progress=False, num_workers=1
    )
    assert num_scans == 2 * 6 * ME_FRAMES
    return root


def read_sheet(root: Path) -> list[dict[str, object]]:
    header, *rows = openpyxl.load_workbook(root / "4DME_labels.xlsx").active.iter_rows(values_only=True)
    assert header == ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs")
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_4dme_sheet_names_the_folders_and_their_frames(fourdme: Path) -> None:
    rows = read_sheet(fourdme)
    assert len(rows) == 12
    for row in rows:
        folder = fourdme / str(row["sub_ID"]) / str(row["fold_name"])
        suffix = ".obj" if row["sub_ID"] == "sub01" else ".wrl"
        frames = sorted(int(path.stem) for path in folder.glob(f"*{suffix}"))
        assert frames == list(range(frames[0], frames[0] + ME_FRAMES))
        assert all((folder / f"{frame:05d}.jpg").is_file() for frame in frames)
        onset, apex, offset = (int(str(row[name])) for name in ("Onset", "Apex", "Offset"))
        assert frames[0] < onset < apex < offset < frames[-1] + 1
    for subject in ("sub01", "sub02"):
        emotions = [str(row["Emotion"]) for row in rows if row["sub_ID"] == subject]
        assert {"Positive", "Negative", "Surprise", "Repression", "Others"} <= set(emotions)
        assert sum("," in emotion for emotion in emotions) == 1


def test_4dme_clips_vary_and_mark_one_sided_units() -> None:
    clips = [clip for number in range(40) for clip in draw_clips(number, 0, 30)]
    assert all(re.fullmatch(r"\d+(\([LR]\))?(\+\d+(\([LR]\))?)*", clip.units) for clip in clips)
    assert sum("(" in clip.units for clip in clips) > 10 and sum("+" in clip.units for clip in clips) > 50
    lengths = np.array([clip.offset - clip.onset for clip in clips])
    assert lengths.min() >= 0.25 * 60 and lengths.max() <= 0.5 * 60  # a micro-expression lasts under half a second
    assert all(clip.first < clip.onset and clip.offset <= clip.first + 29 for clip in clips)


def test_a_micro_expression_is_small_and_lies_between_onset_and_offset(fourdme: Path) -> None:
    for row in [row for row in read_sheet(fourdme) if row["sub_ID"] == "sub01"]:
        folder = fourdme / "sub01" / str(row["fold_name"])
        paths = sorted(folder.glob("*.obj"))
        reference = parse_obj(paths[0])[0]
        centred = reference - reference.mean(0)
        moved = {}
        for path in paths:
            vertices = parse_obj(path)[0]
            vertices = vertices - vertices.mean(0)
            back = Rotation.align_vectors(centred, vertices)[0].apply(vertices)
            # Scanner noise is drawn a vertex; what moves the face is smooth.
            smooth = uniform_filter((back - centred).reshape(*grid_shape(), 3), (5, 5, 0))
            moved[int(path.stem)] = float(np.linalg.norm(smooth, axis=-1)[4:-4, 4:-4].max())
        apex, onset, offset = (int(str(row[name])) for name in ("Apex", "Onset", "Offset"))
        assert 0.25 < moved[apex] < 1.1, row
        assert moved[apex] >= max(moved.values()) - 0.06
        still = [value for frame, value in moved.items() if frame <= onset or frame >= offset]
        assert max(still) < 0.2, row


def test_4dme_files_do_not_depend_on_the_number_of_subjects(fourdme: Path, tmp_path: Path) -> None:
    write_population(LAYOUTS["4dme"], tmp_path, num_subjects=1, num_frames=ME_FRAMES, progress=False, num_workers=1)
    one, both = digests(tmp_path), digests(fourdme)
    (sheet,) = (name for name in one if name.endswith(".xlsx"))  # of all subjects
    assert one.pop(sheet) != both[sheet] and one.items() <= both.items()


def test_a_sheet_carries_no_times(tmp_path: Path) -> None:
    rows = [("sub01", 1, "12(L)"), ("sub02", 2, "Ärger")]
    data = encode_sheet(("a", "b", "c"), rows)
    (tmp_path / "s.xlsx").write_bytes(data)
    book = openpyxl.load_workbook(tmp_path / "s.xlsx")
    assert list(book.active.iter_rows(values_only=True)) == [("a", "b", "c"), *rows]
    assert book.properties.modified.year == book.properties.created.year == 1980
    assert data == encode_sheet(("a", "b", "c"), rows)


def test_a_build_shows_4dme_upright_unmirrored_and_textured(fourdme: Path, tmp_path: Path) -> None:
    root = copy_part(fourdme, tmp_path / "data", ["*.txt", "*.xlsx", "sub01/clip01/*"])
    check_build("4dme", root, tmp_path, obj_colours, ME_FRAMES)
