"""Bosphorus landmark files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocess.readers.lm3 import BOSPHORUS_LANDMARK_GROUPS, BOSPHORUS_LANDMARKS, read_lm3
from shared.errors import ScanError

POINTS = np.arange(66.0).reshape(22, 3) - 20.5


def lm3_text(names: list[str], points: np.ndarray, count: str | None = None) -> str:
    head = f"# 3D Landmark File\n\n{len(names)} landmarks:\n" if count is None else f"# 3D Landmark File\n\n{count}"
    return head + "".join(f"{name}\n{x} {y} {z}\n" for name, (x, y, z) in zip(names, points, strict=True))


def write(path: Path, text: str, newline: str = "\n") -> Path:
    path.write_bytes(text.replace("\n", newline).encode())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("count", [None, "22 landmarks\n", "22  Landmarks :\n\n", ""])
def test_order_and_points(tmp_path: Path, newline: str, count: str | None) -> None:
    order = np.random.default_rng(0).permutation(22)
    text = lm3_text([BOSPHORUS_LANDMARKS[i] for i in order], POINTS[order], count)
    np.testing.assert_array_equal(read_lm3(write(tmp_path / "a.lm3", text, newline)), POINTS.astype(np.float32))


def test_points_that_are_not_there_are_nan_and_ear_lobes_are_left_out(tmp_path: Path) -> None:
    names = ["Left ear lobe", "Nose tip", "middle left eyebrow", "LOWER LIP OUTER MIDDLE"]
    landmarks = read_lm3(write(tmp_path / "a.lm3", lm3_text(names, POINTS[:4])))
    assert np.flatnonzero(np.isfinite(landmarks).all(axis=1)).tolist() == [1, 13, 20]
    np.testing.assert_array_equal(landmarks[[13, 1, 20]], POINTS[1:4].astype(np.float32))


@pytest.mark.parametrize(
    "block", ["*\nscanner: synthetic\ndate: 2026\n\n", "\n*\n# 5 landmarks:\nNose tip\n1 2 3\nLabels:\n\n\n", "*\n\n"]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_block_behind_the_first_line_is_skipped(tmp_path: Path, block: str, newline: str) -> None:
    text = lm3_text(list(BOSPHORUS_LANDMARKS), POINTS)
    path = write(tmp_path / "a.lm3", text.replace("File\n\n", f"File\n{block}"), newline)
    np.testing.assert_array_equal(read_lm3(path), POINTS.astype(np.float32))


def test_a_block_without_an_end_is_a_scan_error(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"a\.lm3"):
        read_lm3(write(tmp_path / "a.lm3", lm3_text(["Nose tip"], POINTS[:1], "*\n1 landmarks:\n")))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.lm3").write_bytes(lm3_text(list(BOSPHORUS_LANDMARKS), POINTS).encode(encoding))
    np.testing.assert_array_equal(read_lm3(tmp_path / "a.lm3"), POINTS.astype(np.float32))


def test_groups_name_points_of_their_name() -> None:
    named = {group: {BOSPHORUS_LANDMARKS[i] for i in indices} for group, indices in BOSPHORUS_LANDMARK_GROUPS.items()}
    assert named["left_eye"] == {"Outer left eye corner", "Inner left eye corner"}
    assert named["right_eye"] == {"Outer right eye corner", "Inner right eye corner"}
    assert named["nose_tip"] == {"Nose tip"}
    assert named["mouth"] == {
        "Left mouth corner", "Right mouth corner", "Upper lip outer middle", "Lower lip outer middle",
    }  # fmt: skip
    for side in ("left", "right"):
        brow = {f"Outer {side} eyebrow", f"Middle of the {side} eyebrow", f"Inner {side} eyebrow"}
        assert named[f"{side}_brow"] == brow


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[: t.index("Inner left eye")], "expected 22"),
        (lambda t: t[: t.index("Inner left eye") + 22], "expected"),
        (lambda t: t.replace("Nose tip", "Chin middle"), "stands twice"),
        (lambda t: t.replace("-20.5", "nan"), "not finite"),
        (lambda t: t.replace("-20.5", "1e99"), "not finite"),
        (lambda t: t.replace("-20.5 ", "", 1), "followed by 3 numbers"),
        (lambda t: t.replace("-20.5", "x"), "followed by 3 numbers"),
        (lambda t: "# 3D Landmark File\n\n1 landmarks:\nLeft knee\n1 2 3\n", "none of the 22"),
        (lambda t: "# 3D Landmark File\n\n0 landmarks:\n", "each label"),
        (lambda t: "", "empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / "a.lm3", change(lm3_text(list(BOSPHORUS_LANDMARKS), POINTS)))
    with pytest.raises(ScanError, match=message) as error:
        read_lm3(path)
    assert "a.lm3" in str(error.value)


def test_every_truncation_by_lines_is_a_scan_error(tmp_path: Path) -> None:
    lines = lm3_text(list(BOSPHORUS_LANDMARKS), POINTS).splitlines(keepends=True)
    for length in range(len(lines)):
        with pytest.raises(ScanError):
            read_lm3(write(tmp_path / "a.lm3", "".join(lines[:length])))
