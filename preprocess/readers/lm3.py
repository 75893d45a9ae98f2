"""The landmark files of Bosphorus (.lm3). Its .lm2 files, the same points in the image, are not needed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from preprocess.readers.file_bytes import COPY, read_lines
from preprocess.readers.text_numbers import to_float32
from shared.errors import ScanError

# The 22 points in the order of the data set's guide (Savran et al. 2008); files hold those that can be seen. The guide's
# further two, the ear lobes, are not used.
BOSPHORUS_LANDMARKS = (
    "Outer left eyebrow", "Middle of the left eyebrow", "Inner left eyebrow",
    "Inner right eyebrow", "Middle of the right eyebrow", "Outer right eyebrow",
    "Outer left eye corner", "Inner left eye corner", "Inner right eye corner", "Outer right eye corner",
    "Nose saddle left", "Nose saddle right", "Left nose peak", "Nose tip", "Right nose peak",
    "Left mouth corner", "Upper lip outer middle", "Right mouth corner",
    "Upper lip inner middle", "Lower lip inner middle", "Lower lip outer middle", "Chin middle",
)  # fmt: skip
NUM_BOSPHORUS_LANDMARKS = len(BOSPHORUS_LANDMARKS)

# Whether left is the subject's or the image's is not documented: alignment tries both.
BOSPHORUS_LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    "left_eye": (6, 7),
    "right_eye": (8, 9),
    "left_brow": (0, 1, 2),
    "right_brow": (3, 4, 5),
    "nose_tip": (13,),
    "mouth": (15, 16, 17, 20),
}

_COUNT = re.compile(r"\s*(\d+)\s+landmarks\s*:?\s*", re.IGNORECASE)
_FILL_WORDS = {"of", "the"}


def read_lm3(path: Path) -> np.ndarray:
    """Read a .lm3 file: after two header lines, a label on one line and its `x y z` on the next.

    Returns:
        f32 (22, 3) in the scan's coordinates, in the order of BOSPHORUS_LANDMARKS, NaN for a point that the file lacks.
    Raises:
        ScanError: missing, another format, fewer points than its count line says, a point twice, or none of the 22.
    """
    lines, count = _read_entries(path)
    labels, rows = lines[0::2], [line.replace(",", " ").split() for line in lines[1::2]]
    try:
        if not rows or any(len(row) != 3 for row in rows):
            raise ValueError
        points = to_float32(np.array([[float(word) for word in row] for row in rows]))
    except ValueError:
        raise ScanError(f"{path}: expected each label to be followed by 3 numbers; {COPY}") from None
    if not np.isfinite(points).all():
        raise ScanError(f"{path}: a landmark is not finite; {COPY}")
    if len(labels) != len(points) or (count is not None and len(points) < count):
        raise ScanError(
            f"{path}: {len(labels)} labels and {len(points)} points, expected {count or len(labels)}; {COPY}"
        )
    index = {_words(name): i for i, name in enumerate(BOSPHORUS_LANDMARKS)}
    result = np.full((NUM_BOSPHORUS_LANDMARKS, 3), np.nan, np.float32)
    for label, point in zip(labels, points, strict=True):
        i = index.get(_words(label))
        if i is None:  # an ear lobe, or what a later release adds
            continue
        if np.isfinite(result[i]).any():
            raise ScanError(f"{path}: {label[:40]!r} stands twice; {COPY}")
        result[i] = point
    if np.isnan(result).all():
        raise ScanError(f"{path}: none of the 22 landmarks of Bosphorus ({labels[0][:40]!r} …); {COPY}")
    return result


def _read_entries(path: Path) -> tuple[list[str], int | None]:
    """Return the lines that are neither blank nor a comment nor the count; and the count, if there is one.

    Some files hold a block behind the first line: a line `*`, then free text up to an empty line. It is skipped.
    """
    lines = read_lines(path)
    begin = next((i for i, line in enumerate(lines) if line and not line.startswith("#")), 0)
    if lines[begin] == "*":
        while begin < len(lines) and lines[begin]:
            begin += 1
    lines = [line for line in lines[begin:] if line and not line.startswith("#")]
    if lines and (match := _COUNT.fullmatch(lines[0])):
        return lines[1:], int(match[1][:9])
    return lines, None


def _words(label: str) -> frozenset[str]:
    """Return a label without its word order, case and fill words, in which copies differ: `Middle of the left eyebrow`."""
    return frozenset(re.findall(r"[a-z]+", label.lower())) - _FILL_WORDS
