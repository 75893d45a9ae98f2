"""What a run looked at, by row of the cache: the attention that its tests wrote beside their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from preprocess.viewer.catalogue import Prediction
from preprocess.viewer.predictions import PREDICTIONS_CSV, find_tests, read_table
from shared.attention import ATTENTION_FILE, Attention, read_attention, read_class_patches, read_patches
from shared.cache import Cache
from shared.schema import Sample


@dataclass(frozen=True)
class Fold:
    """A test's attention. items: those whose rows are what the cache has under their names; predictions: of all, by name;
    views: of each view it looked at, the place among the cache's."""

    name: str  # the fold's
    path: Path
    attention: Attention
    items: tuple[int, ...]
    predictions: Mapping[str, Prediction]
    views: tuple[int, ...]

    def row_of(self, item: int) -> int:
        """The row to open for an item: the frame that counted most."""
        return int(self.attention.rows[item, int(self.attention.frame_weights[item].argmax())])


@dataclass(frozen=True)
class AttentionRecord:
    """What was looked at of the item that a row belongs to. frame: the row's place among those looked at, None: not one."""

    test: Fold
    item: int
    frame: int | None

    def patches(self) -> np.ndarray | None:
        """Maps of the frame's pictures (N, G, G); None where none were kept. Raises FacetError where the file is damaged."""
        maps = None if self.frame is None else read_patches(self.test.path, self.test.attention, self.item)
        return None if maps is None else maps[self.frame]

    def class_patches(self) -> np.ndarray | None:
        """Where each class's words looked, over all frames (C, N, H, H); None where that was not kept, or the row is none of
        those frames. Raises FacetError where the file is damaged."""
        return None if self.frame is None else read_class_patches(self.test.path, self.test.attention, self.item)


@dataclass(frozen=True)
class AttentionRecords:
    """All tests of a run. notes: what is missing, for the reader."""

    tests: tuple[Fold, ...]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Name → test, item; of several tests of one face the last counts, as for predictions."""
        return {test.attention.names[item]: (n, item) for n, test in enumerate(self.tests) for item in test.items}

    def find(self, row: int) -> AttentionRecord | None:
        if not self.tests:
            return None
        sample = self.samples[row]
        for name in (sample.sequence, sample.sample_id):
            if name and name in self._places:
                number, item = self._places[name]
                frames = np.flatnonzero(self.tests[number].attention.rows[item] == row)
                return AttentionRecord(self.tests[number], item, int(frames[0]) if len(frames) else None)
        return None


NO_RECORDS = AttentionRecords((), ())


def read_attention_records(run: Path, cache: Cache) -> AttentionRecords:
    """The attention of a run's tests on a cache; what does not fit the cache is left out and told in notes.

    Raises:
        FacetError: a file is damaged.
    """
    tests, notes = [], []
    tables = find_tests(run, cache)
    lacking: list[str] = []
    views, modalities = tuple(str(view) for view in cache.info.settings.views), cache.info.settings.modalities
    for table in tables:
        path = table.with_name(ATTENTION_FILE)
        if table.name != PREDICTIONS_CSV:
            path = table.with_name(f"attention-{cache.name}.safetensors")
        name = run.resolve().name if table.parent == run else str(table.parent.relative_to(run))
        if not path.is_file():
            lacking.append(str(table.parent))
            continue
        attention = read_attention(path)
        if not ({*attention.views} <= {*views} and {*attention.modalities} <= {*modalities}):
            notes.append(f"{name} looked at other views than those of this cache")
            continue
        items = _fitting(attention, cache.samples)
        if len(items) < len(attention.names):
            notes.append(f"{name} looked at {len(attention.names) - len(items)} faces that are not in this cache")
        places = tuple(views.index(view) for view in attention.views)
        tests.append(Fold(name, path, attention, items, read_table(table), places))
    if lacking:
        which = "" if len(tables) == 1 else f" of {len(lacking)} of {len(tables)} folds"
        more = "" if len(lacking) == 1 else ", and so on,"
        notes.append(f"no {ATTENTION_FILE}{which}: `python -m train evaluate {lacking[0]}`{more} writes it")
    return AttentionRecords(tuple(tests), cache.samples, tuple(notes))


def _fitting(attention: Attention, samples: Sequence[Sample]) -> tuple[int, ...]:
    """Items whose rows bear their names: a row number alone says nothing of which cache it is of."""
    found = []
    for item, (name, rows) in enumerate(zip(attention.names, attention.rows.tolist(), strict=True)):
        if all(0 <= row < len(samples) and name in (samples[row].sample_id, samples[row].sequence) for row in rows):
            found.append(item)
    return tuple(found)
