"""The action units of BP4D-Spontaneous, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocess.datasets.completeness import name_some
from preprocess.datasets.scan import ScanRecord
from preprocess.readers.au_csv import UNKNOWN, find_uncoded_units, read_au_intensity, read_au_occurrence
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
    """Read a sequence's action units for the given frames.

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
    """Describe sequences with missing or partial action units, and coding files that match no frames or cannot be read."""
    frames: dict[str, list[ScanRecord]] = {}
    for record in records:
        frames.setdefault(record.sequence, []).append(record)
    if not occurrence and not intensity:
        return ["no action units (AUCoding) found"]
    graded = {sequence for sequence, _ in intensity}
    with_files = occurrence.keys() | graded
    uncoded = [name for name in frames if name in with_files and not any(record.aus for record in frames[name])]
    few = [name for name in frames if any((name, unit) not in intensity for unit in INTENSITY_UNITS)]
    sequences = {
        "sequences without action units": [name for name in frames if name not in with_files],
        "sequences with intensities alone, without occurrences (AU_OCC)": [
            name for name in frames if name in graded and name not in occurrence
        ],
        "sequences without intensities (AU_INT) of all units": [name for name in few if graded and name in with_files],
        "sequences whose action units are of other frames": uncoded,
        "frames without action units among others that have them": [
            record.sample_id for name, members in frames.items() for record in _find_holes(members, name in occurrence)
        ],
        "sequences of action units without frames": sorted(with_files - frames.keys()),
    }
    lines = [f"{len(names):,} {what}: {name_some(names)}" for what, names in sequences.items() if names]
    lacking: dict[tuple[int, ...], list[str]] = {}
    for name in frames:
        lines += read_action_units(name, (), occurrence, intensity)[1]
        if name in occurrence and (units := _find_uncoded(occurrence[name])):
            lacking.setdefault(units, []).append(name)
    return lines + [
        f"{len(names):,} sequences whose AU_OCC has no column for AU {', '.join(map(str, units))}: {name_some(names)}"
        for units, names in lacking.items()
    ]


def _find_uncoded(path: Path) -> tuple[int, ...]:
    try:
        return find_uncoded_units(path, OCCURRENCE_UNITS)
    except ScanError:  # read_action_units has its line
        return ()


def _find_holes(members: Sequence[ScanRecord], has_occurrence: bool) -> list[ScanRecord]:
    """Return uncoded frames between the first and the last coded frame of a sequence.

    Args:
        has_occurrence: there is a file of occurrences: intensities alone are not enough then.
    """
    num_units = len(OCCURRENCE_UNITS) if has_occurrence else len(AU_NAMES)
    known = [any(value != UNKNOWN for value in record.aus[:num_units]) for record in members]
    if not any(known):
        return []
    first, end = known.index(True), len(known) - known[::-1].index(True)
    return [record for record, is_known in zip(members[first:end], known[first:end], strict=True) if not is_known]
