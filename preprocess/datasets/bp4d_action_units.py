"""The action units of BP4D-Spontaneous, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocess.datasets.completeness import name_some
from preprocess.readers.au_csv import UNKNOWN, read_au_intensity, read_au_occurrence
from preprocess.scan import ScanRecord
from shared.errors import ScanError

# The units that the occurrence files code (the other columns hold 9 throughout), and those with intensities.
OCCURRENCE_UNITS = (
    1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 27, 28, 30, 32, 38, 39,
)  # fmt: skip
INTENSITY_UNITS = (6, 10, 12, 14, 17)
AU_NAMES = (*(f"AU{unit}" for unit in OCCURRENCE_UNITS), *(f"AU{unit}_intensity" for unit in INTENSITY_UNITS))


def read_action_units(
    sequence: str,
    frames: Sequence[int],
    occurrence: dict[str, Path],
    intensity: dict[tuple[str, int], Path],
) -> tuple[list[tuple[int, ...]], list[str]]:
    """A sequence's action units for the given model frames.

    Args:
        occurrence, intensity: what find_au_files returns.
    Returns:
        For each frame a value for each of AU_NAMES, -1 = unknown, or () where all are; the errors of files that could not
        be read, which count as missing.
    """
    table = np.full((len(frames), len(AU_NAMES)), UNKNOWN, np.int8)
    rows = {frame: row for row, frame in enumerate(frames)}
    errors = []
    if sequence in occurrence:
        try:
            for frame, values in read_au_occurrence(occurrence[sequence], OCCURRENCE_UNITS).items():
                if frame in rows:
                    table[rows[frame], : len(OCCURRENCE_UNITS)] = values
        except ScanError as error:
            errors.append(str(error))
    for column, unit in enumerate(INTENSITY_UNITS, start=len(OCCURRENCE_UNITS)):
        if (sequence, unit) in intensity:
            try:
                for frame, value in read_au_intensity(intensity[sequence, unit]).items():
                    if frame in rows:
                        table[rows[frame], column] = value
            except ScanError as error:
                errors.append(str(error))
    nothing = (UNKNOWN,) * len(AU_NAMES)
    shared: dict[tuple[int, ...], tuple[int, ...]] = {nothing: ()}  # frames in a row are coded alike: one tuple for all
    rows_of_table = [tuple(row) for row in table.tolist()]
    return [shared.setdefault(value, value) for value in rows_of_table], errors


def describe_uncoded(
    records: Sequence[ScanRecord], occurrence: dict[str, Path], intensity: dict[tuple[str, int], Path]
) -> list[str]:
    """Lines on sequences without action units, and on files that cannot be read."""
    frames: dict[str, list[int]] = {}
    coded: set[str] = set()
    for record in records:
        frames.setdefault(record.sequence, []).append(record.frame or 0)
        if record.aus:
            coded.add(record.sequence)
    if not occurrence and not intensity:
        return ["no action units (AUCoding) found"]
    with_files = occurrence.keys() | {sequence for sequence, _ in intensity}
    missing = [name for name in frames if name not in with_files]
    other = [name for name in frames if name in with_files and name not in coded]
    lines = [f"{len(missing)} sequences without action units: {name_some(missing)}"] if missing else []
    lines += [f"{len(other)} sequences whose action units are of other frames: {name_some(other)}"] if other else []
    for name in frames:
        lines += read_action_units(name, (), occurrence, intensity)[1]
    return lines
