"""The action units of BP4D-Spontaneous and BP4D+, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.datasets.bp4d_edition import INTENSITY_UNITS, Edition
from preprocess.datasets.completeness import describe_some
from preprocess.datasets.scan import ScanRecord
from preprocess.readers.au_csv import UNKNOWN, find_uncoded_units, read_au_intensity, read_au_occurrence
from shared.errors import ScanError
from shared.pairs import group_pairs


@dataclass(frozen=True)
class ActionUnits:
    """The coding files of one copy, and how to read them.

    occurrence: sequence (`F001/T1`) → its file. intensity: sequence and unit → its file. first_frame: number of the model frame
    that AU frame 1 codes.
    """

    edition: Edition
    occurrence: Mapping[str, Path]
    intensity: Mapping[tuple[str, int], Path]
    first_frame: int = 0

    def read(self, sequence: str, frames: Sequence[int]) -> tuple[list[tuple[int, ...]], list[str]]:
        """Read a sequence's action units for the given model frames.

        Returns:
            For each frame a value for each of the edition's au_names, -1 = unknown, or () where all are; the errors of files
            that could not be read, which count as missing.
        """
        units, names = self.edition.units, self.edition.au_names
        table = np.full((len(frames), len(names)), UNKNOWN, np.int8)
        rows = {frame - self.first_frame: row for row, frame in enumerate(frames)}
        errors = []
        if sequence in self.occurrence:
            try:
                for frame, values in read_au_occurrence(self.occurrence[sequence], units).items():
                    if frame in rows:
                        table[rows[frame], : len(units)] = values
            except ScanError as error:
                errors.append(str(error))
        for column, unit in enumerate(INTENSITY_UNITS, start=len(units)):
            if (sequence, unit) in self.intensity:
                try:
                    for frame, value in read_au_intensity(self.intensity[sequence, unit]).items():
                        if frame in rows:
                            table[rows[frame], column] = value
                except ScanError as error:
                    errors.append(str(error))
        nothing = (UNKNOWN,) * len(names)
        # Frames in a row are coded alike: one tuple for all.
        shared: dict[tuple[int, ...], tuple[int, ...]] = {nothing: ()}
        return [shared.setdefault(value, value) for value in map(tuple, table.tolist())], errors

    def describe(self, records: Sequence[ScanRecord]) -> list[str]:
        """Describe sequences with missing or partial action units, and coding files that match no frames or cannot be read."""
        coded = self.edition.coded_tasks
        frames = group_pairs((r.sequence, r) for r in records if not coded or r.task in coded)
        if not self.occurrence and not self.intensity:
            return ["no action units (AUCoding) found"]
        graded = {sequence for sequence, _ in self.intensity}
        with_files = self.occurrence.keys() | graded
        uncoded = [name for name in frames if name in with_files and not any(self._find_known(name, frames[name]))]
        few = [name for name in frames if any((name, unit) not in self.intensity for unit in INTENSITY_UNITS)]
        sequences = {
            "sequences without action units": [name for name in frames if name not in with_files],
            "sequences with intensities alone, without occurrences (AU_OCC)": [
                name for name in frames if name in graded and name not in self.occurrence
            ],
            "sequences without intensities (AU_INT) of all units": [
                name for name in few if graded and name in with_files
            ],
            "sequences whose action units fit none of their frames": uncoded,
            "frames without action units among others that have them": [
                record.sample_id for name, members in frames.items() for record in self._find_holes(name, members)
            ],
            "sequences of action units without frames": sorted(with_files - {record.sequence for record in records}),
        }
        lines = [line for what, names in sequences.items() for line in describe_some(names, what)]
        lacking: dict[tuple[int, ...], list[str]] = {}
        from_zero: list[str] = []
        for name in frames:
            (before,), errors = self.read(name, (self.first_frame - 1,))
            lines += errors
            from_zero += [name] * bool(before)
            if name in self.occurrence and (units := self._find_uncoded(name)):
                lacking.setdefault(units, []).append(name)
        lines += describe_some(
            from_zero,
            "sequences whose action units begin with frame 0, which belongs to no scan, as coders count from 1; if these files "
            "count from 0, add 1 to their frames",
        )
        for units, names in lacking.items():
            lines += describe_some(names, f"sequences whose AU_OCC has no column for AU {', '.join(map(str, units))}")
        return lines

    def _find_uncoded(self, sequence: str) -> tuple[int, ...]:
        try:
            return find_uncoded_units(self.occurrence[sequence], self.edition.units)
        except ScanError:  # `read` has its line
            return ()

    def _find_known(self, sequence: str, members: Sequence[ScanRecord]) -> list[bool]:
        """Return whether each frame is coded; where there is a file of occurrences, intensities alone are not enough."""
        num_units = len(self.edition.units if sequence in self.occurrence else self.edition.au_names)
        return [any(value != UNKNOWN for value in record.aus[:num_units]) for record in members]

    def _find_holes(self, sequence: str, members: Sequence[ScanRecord]) -> list[ScanRecord]:
        """Return uncoded frames between the first and the last coded frame of a sequence."""
        known = self._find_known(sequence, members)
        if not any(known):
            return []
        first, end = known.index(True), len(known) - known[::-1].index(True)
        return [record for record, is_known in zip(members[first:end], known[first:end], strict=True) if not is_known]
