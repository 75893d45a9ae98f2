"""Apex estimates against analytic faces whose bump grows and shrinks, through a real build; and against exact rigid motion."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_folders import cache_bytes, face_grid
from scipy.spatial.transform import Rotation

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM
from preprocess.build.build import build_cache
from preprocess.build.engine import read_records
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from preprocess.sequences.apex import NOTES, describe_marks, estimate_apexes, find_peak, remove_motion, rigid_motions
from shared.cache import open_cache, read_record
from shared.schema import RenderSettings
from shared.schema import Sequence as SequenceRow
from shared.store.storage import STORES

NUM_FRAMES = 20
APEXES = {"A": 6, "B": 13}  # B's head drifts more than its cheek moves
FIRST_FRAME = 100
SMALL = RenderSettings(size_px=48, modalities=("normal", "depth"))
FOLDER = DATASETS["folder"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sequences")
    write_sequences(root)
    return root


def write_sequences(root: Path) -> None:
    """Two sequences of a face whose cheek swells by 4 mm and goes back, with noise; frames are numbered from 100."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    points = "".join(f"{key},{x},{y},{z}\n" for key, (x, y, z) in CANONICAL_POINTS_MM.items())
    (root / "points.csv").write_text(points)
    rows = ["path,subject,label,sequence,frame,landmarks\n"]
    for name, apex in APEXES.items():
        for frame in range(NUM_FRAMES):
            vertices, triangles = face_grid(4 * np.exp(-(((frame - apex) / 3.5) ** 2)))
            vertices = vertices + rng.normal(0, 0.05, vertices.shape)
            if name == "B":
                vertices = vertices + np.array([0.12, -0.1, 0.15]) * frame
            lines = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices]
            lines += [f"f {a} {b} {c}" for a, b, c in triangles + 1]
            (root / f"{name}{frame:02d}.obj").write_text("\n".join(lines) + "\n")
            rows.append(f"{name}{frame:02d}.obj,S{name},anger,{name},{FIRST_FRAME + frame},points.csv\n")
    (root / "manifest.csv").write_text("".join(rows))


def build(root: Path, cache: Path, settings: RenderSettings = SMALL, **options: object) -> list[SequenceRow]:
    build_cache(FOLDER, root, cache, settings, **{"num_workers": 1, **options})  # type: ignore[arg-type]
    return open_cache(cache).sequences


def assert_near_truth(sequences: list[SequenceRow]) -> None:
    assert [s.sequence for s in sequences] == list(APEXES)
    for sequence in sequences:
        assert sequence.apex is not None
        assert abs(sequence.apex - FIRST_FRAME - APEXES[sequence.sequence]) <= 2
        assert (sequence.onset, sequence.offset, sequence.marks) == (None, None, "estimated")


@pytest.mark.parametrize("store", STORES)
def test_apex_is_where_the_bump_is_largest(
    store: str, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_near_truth(build(scans, tmp_path / "c", store=store))
    whole = cache_bytes(tmp_path / "c")
    assert verify_cache(tmp_path / "c") == []
    (tmp_path / "c" / NOTES).unlink()
    monkeypatch.setattr("preprocess.build.build.FRAMES_PER_CHILD", NUM_FRAMES)
    build(scans, tmp_path / "c", store=store, num_workers=2)
    assert cache_bytes(tmp_path / "c") == whole  # estimated anew, each sequence in a process of its own: the same


def test_larger_images_are_thinned_out(scans: Path, tmp_path: Path) -> None:
    assert_near_truth(
        build(scans, tmp_path / "c", dataclasses.replace(SMALL, size_px=230, modalities=("depth",), supersampling=1))
    )


def test_invalid_frames_are_left_out(tmp_path: Path) -> None:
    write_sequences(tmp_path / "scans")
    for name in ("A03", "A08", "A09", "B19"):
        (tmp_path / "scans" / f"{name}.obj").write_text("garbled")
    assert_near_truth(build(tmp_path / "scans", tmp_path / "c"))
    for frame in range(2, NUM_FRAMES):
        (tmp_path / "scans" / f"A{frame:02d}.obj").write_text("garbled")
    few = build(tmp_path / "scans", tmp_path / "c")
    assert few[0].apex is None  # two frames are too few
    assert few[0].marks == ""
    assert_near_truth([dataclasses.replace(few[0], apex=FIRST_FRAME + APEXES["A"], marks="estimated"), few[1]])


def test_without_depth_there_is_no_estimate(scans: Path, tmp_path: Path) -> None:
    sequences = build(scans, tmp_path / "c", dataclasses.replace(SMALL, modalities=("normal",)))
    assert [(s.apex, s.marks) for s in sequences] == [(None, ""), (None, "")]


def test_finished_caches_are_not_read_again_and_damage_costs_the_estimate_alone(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(scans, tmp_path / "c")
    whole = cache_bytes(tmp_path / "c")
    (name,) = [name for name in read_record(tmp_path / "c", 0).files if "/depth/" in name]  # type: ignore[union-attr]
    damaged = bytearray(whole[name])
    start = len(damaged) // 4
    damaged[start : 3 * start] = bytes(b ^ 0xFF for b in damaged[start : 3 * start])
    (tmp_path / "c" / name).write_bytes(damaged)
    assert_near_truth(build(scans, tmp_path / "c"))  # from the notes: reading would fail, as it does now
    assert "no apex" not in capsys.readouterr().err
    (tmp_path / "c" / NOTES).write_text("{}")
    sequences = build(scans, tmp_path / "c")
    assert None in [s.apex for s in sequences]
    assert "no apex for" in capsys.readouterr().err
    assert_near_truth(build(scans, tmp_path / "c", repair=True))
    assert cache_bytes(tmp_path / "c") == whole


def test_given_moments_are_kept_and_bound_the_search(scans: Path, tmp_path: Path) -> None:
    estimated = build(scans, tmp_path / "c")
    cache = open_cache(tmp_path / "c")
    given_all = dataclasses.replace(estimated[0], onset=101, apex=102, offset=119, marks="given")
    late = dataclasses.replace(estimated[1], onset=FIRST_FRAME + 1, apex=None, offset=FIRST_FRAME + 10, marks="given")
    first, second = estimate_apexes(cache.path, cache.info, read_records(cache.path, cache.info), [given_all, late])
    assert first == given_all
    assert second.apex is not None
    assert FIRST_FRAME + 8 <= second.apex <= FIRST_FRAME + 10  # still growing when the sequence is said to end
    assert second.marks == "onset,offset given; apex estimated"


def test_marks() -> None:
    assert describe_marks((None, None, None), estimated=()) == ""
    assert describe_marks((1, 2, 3), estimated=()) == "given"
    assert describe_marks((1, None, None), estimated=("apex",)) == "given"
    assert describe_marks((None, 2, None), estimated=("apex",)) == "estimated"
    assert describe_marks((1, 2, None), estimated=("apex",)) == "onset given; apex estimated"


def ellipsoid_depth_mm(turn: Rotation, shift_mm: np.ndarray, size: int = 80, mm_per_px: float = 2.0) -> np.ndarray:
    """Front of an ellipsoid that was turned about the origin and shifted, f64 (size, size), exactly; NaN beside it.

    A point p is on it where (Rᵀ(p − t) − c)ᵀ D (Rᵀ(p − t) − c) = 1: a quadratic equation in z along each line of sight.
    """
    axes, centre = np.diag(1 / np.array([70.0, 90.0, 60.0]) ** 2), np.array([0.0, 0.0, -60.0])
    place = (np.arange(size) + 0.5 - size / 2) * mm_per_px
    x, y = np.meshgrid(place, -place)
    rotation = turn.as_matrix()
    origin = np.stack([x, y, 0 * x], -1) - shift_mm
    q = origin @ rotation - centre
    r = rotation.T @ np.array([0.0, 0.0, 1.0])
    a = r @ axes @ r
    b = 2 * (q @ axes @ r)
    c = np.einsum("hwi,ij,hwj->hw", q, axes, q) - 1
    inside = b * b - 4 * a * c
    return np.where(inside > 0, (-b + np.sqrt(np.clip(inside, 0, None))) / (2 * a), np.nan)


@pytest.mark.parametrize("seed", range(5))
def test_rigid_motion_is_taken_away_and_a_bump_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    still = ellipsoid_depth_mm(Rotation.identity(), np.zeros(3))
    moved = ellipsoid_depth_mm(Rotation.from_rotvec(rng.uniform(-1, 1, 3), degrees=True), rng.uniform(-1, 1, 3))
    motions = rigid_motions(still, 2.0)
    both = np.isfinite(moved - still) & np.isfinite(motions).all(-1)
    assert both.mean() > 0.3
    place = (np.arange(80) + 0.5 - 40) * 2.0
    bump = 3 * np.exp(-(((place - 30) / 12) ** 2) - ((-place[:, None] + 20) / 12) ** 2)
    difference = (moved - still)[both]
    assert np.abs(remove_motion(difference, motions[both])).mean() < 0.06 * np.abs(difference).mean()
    rest = remove_motion((moved + bump - still)[both], motions[both])
    assert rest.max() == pytest.approx(3, abs=0.5)
    assert np.corrcoef(rest, bump[both])[0, 1] > 0.97


def test_each_small_motion_changes_depth_as_it_should() -> None:
    """Against moving the surface itself, a little to and fro; to a part in fifty where the slope is known that well."""
    found = rigid_motions(ellipsoid_depth_mm(Rotation.identity(), np.zeros(3)), 2.0)
    assert found.shape == (80, 80, 6)
    gentle = np.isfinite(found).all(-1) & (np.abs(found[..., :2]).max(-1) < 1)
    assert gentle.sum() > 1500
    tiny = 1e-3
    for k, axis in enumerate(np.tile(np.eye(3), (2, 1))):
        to, fro = (
            ellipsoid_depth_mm(Rotation.identity(), sign * tiny * axis)
            if k < 3
            else ellipsoid_depth_mm(Rotation.from_rotvec(sign * tiny * axis), np.zeros(3))
            for sign in (1, -1)
        )
        wanted = ((to - fro) / (2 * tiny))[gentle]
        assert np.abs(found[gentle, k] - wanted).max() < 0.02 * np.abs(wanted).max(), k


# Of every length alike: lists of hypothesis' own are seldom long enough for the whole window.
CHANGES = st.integers(0, 40).flatmap(
    lambda num: st.lists(st.one_of(st.floats(0, 5), st.just(float("nan"))), min_size=num, max_size=num)
)


@given(CHANGES)
def test_peak_is_the_greatest_of_the_smoothed_known_values(values: list[float]) -> None:
    change = np.array(values, np.float64)
    known = np.isfinite(change)
    peak = find_peak(change)
    if known.sum() < 3:
        assert peak is None
        return
    assert peak is not None
    assert known[peak]
    half = min(2, int(known.sum()) // 6)
    held, place = change[known], int(known[:peak].sum())
    windows = [np.mean(held[max(0, i - half) : i + half + 1]) for i in range(len(held))]
    assert windows[place] == max(windows)


@pytest.mark.parametrize(("apex", "width"), [(5, 3), (20, 4), (33, 6), (50, 15)])
def test_peak_of_a_noisy_bump(apex: int, width: float) -> None:
    time = np.arange(60)
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(0, 0.04, 60)
        peak = find_peak(np.exp(-(((time - apex) / width) ** 2)) + noise)
        assert peak is not None
        assert abs(peak - apex) <= max(2, width / 3)
