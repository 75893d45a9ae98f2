"""Predictions and attention of a run, matched with the rows of a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.attention_file import ATTENTION_FILE, Attention, read_attention, read_class_patches, read_patches
from shared.cache import Cache
from shared.errors import FacetError
from shared.pairs import group_pairs
from shared.runs import PREDICTIONS_CSV, Prediction, find_predictions, read_predictions
from shared.schema import Sample

TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE = "TP", "FN", "FP", "TN"
DECISIONS = (TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE)
ERRORS = (FALSE_NEGATIVE, FALSE_POSITIVE)
RIGHT, WRONG = "right", "wrong"
MANY_ERRORS = 4  # of several labels: this many and more are one group


@dataclass(frozen=True, eq=False)
class Fold:
    """One test with recorded attention."""

    name: str
    path: Path  # attention.safetensors
    attention: Attention
    items: tuple[int, ...]  # items of `attention` whose rows are in the cache
    predictions: Mapping[str, Prediction]  # by name
    views: tuple[int, ...]  # index into the cache's views, for each view of `attention`

    def row_of(self, item: int) -> int:
        """Return the cache row of the frame that weighs most in an item's face vector. item: index into `attention.names`."""
        return int(self.attention.rows[item, int(self.attention.frame_weights[item].argmax())])


@dataclass(frozen=True)
class AttentionRecord:
    """Attention of the item that a row belongs to."""

    fold: Fold
    item: int
    frame: int | None  # index of the row among the item's frames; None: the item was tested without this row

    def find_image(self, modality: str, view: int) -> int | None:
        """Return the index of an image among those of the frame; None if the test had no such image. view: of the cache."""
        attention, views = self.fold.attention, self.fold.views
        if self.frame is None or modality not in attention.modalities or view not in views:
            return None
        return attention.modalities.index(modality) * len(views) + views.index(view)

    def weigh_frames(self) -> dict[int, float]:
        """Return row → weight of the item's frames, in time order; a short sequence repeats frames."""
        weights: dict[int, float] = {}
        attention = self.fold.attention
        pairs = zip(attention.rows[self.item].tolist(), attention.frame_weights[self.item].tolist(), strict=True)
        for row, weight in pairs:
            weights[row] = weights.get(row, 0.0) + weight
        return weights

    def read_maps(self, class_index: int | None = None) -> np.ndarray | None:
        """Read the attention maps of the frame's N images, f16 (N, G, G); None if not recorded.

        Args:
            class_index: MTGF's attention of this class, over all frames; None: the attention of the image tower.
        Raises:
            FacetError: the file is damaged.
        """
        if self.frame is None:
            return None
        read, index = (read_patches, self.frame) if class_index is None else (read_class_patches, class_index)
        maps = read(self.fold.path, self.fold.attention, self.item)
        return None if maps is None or index >= len(maps) else maps[index]


@dataclass(frozen=True)
class RunRecords:
    """Everything that the pages show about a run. An empty name: no run was given."""

    name: str = ""
    class_names: tuple[str, ...] = ()
    several: bool = False  # several labels may hold at once
    levels: bool = False  # intensities are predicted; the probabilities are fractions of MAX_INTENSITY
    predictions: Mapping[int, Prediction] = field(default_factory=dict)  # by row; a sequence's counts for its frames
    tested: tuple[Prediction, ...] = ()  # each prediction once, as the report of the run counts them
    folds: tuple[Fold, ...] = ()
    notes: tuple[str, ...] = ()  # which attention is missing, and why
    is_own_test: bool = True  # the run's own test, of subjects it was not trained on; False: what `predict` wrote

    def probability(self, prediction: Prediction) -> float:
        """Return the highest probability of a predicted class; 0 if no class is predicted."""
        return max(
            (
                p
                for name, p in zip(self.class_names, prediction.probabilities, strict=True)
                if name in prediction.predicted
            ),
            default=0.0,
        )

    def decide(self, prediction: Prediction) -> dict[str, str]:
        """Return class → one of DECISIONS, for the classes whose truth is known."""
        names = {(True, True): TRUE_POSITIVE, (True, False): FALSE_NEGATIVE, (False, True): FALSE_POSITIVE}
        return {
            name: names.get((name in prediction.labels, name in prediction.predicted), TRUE_NEGATIVE)
            for name in self.class_names
            if name not in prediction.unknown
        }

    def confidence(self, prediction: Prediction, class_name: str = "") -> float:
        """Return the probability of what was predicted; for several labels, of the decision about one class.

        Args:
            class_name: "": the mean over all classes.
        """
        if not self.several:
            return self.probability(prediction)
        pairs = zip(self.class_names, prediction.probabilities, strict=True)
        decided = {name: p if name in prediction.predicted else 1 - p for name, p in pairs}
        return decided.get(class_name, sum(decided.values()) / max(len(decided), 1))

    def describe_error(self, prediction: Prediction) -> str:
        """Return "right" or "wrong", for several labels the number of errors: "2 wrong"; "not known" without a truth."""
        num = self.count_errors(prediction)
        if not (self.decide(prediction) if self.several else prediction.labels):
            return "not known"
        if not self.several:
            return WRONG if num else RIGHT
        return f"{num} wrong" if num < MANY_ERRORS else f"{MANY_ERRORS} wrong or more"

    def count_errors(self, prediction: Prediction) -> int:
        """Count the wrong decisions of a prediction; 0 or 1 for a single label, 0 if the truth is not known."""
        if self.several:
            return sum(decision in ERRORS for decision in self.decide(prediction).values())
        return int(bool(prediction.labels) and prediction.predicted != prediction.labels)

    def summarise(self, prediction: Prediction) -> str:
        """Return the predicted class; for several labels, the number of errors: `1 FN, 2 FP`."""
        if not self.several:
            return prediction.predicted[0]
        decisions = [*self.decide(prediction).values()]
        errors = [f"{count} {name}" for name in ERRORS if (count := decisions.count(name))]
        return ", ".join(errors) or ("all correct" if decisions else "not known")

    @cached_property
    def _items(self) -> dict[str, tuple[Fold, int]]:
        return {fold.attention.names[item]: (fold, item) for fold in self.folds for item in fold.items}

    def find_row(self, name: str) -> int | None:
        """Return the row of the frame that weighs most in an item; None without recorded attention."""
        fold, item = self._items.get(name, (None, 0))
        return fold.row_of(item) if fold else None

    def find_attention(self, row: int, sample: Sample) -> AttentionRecord | None:
        """Return the attention recorded for a sample's sequence, else for the sample itself; None if there is none.

        If several rounds tested it, the last round counts.

        Args:
            row: the sample's row in the cache.
        """
        found = self._items.get(sample.sequence or sample.sample_id) or self._items.get(sample.sample_id)
        if found is None:
            return None
        fold, item = found
        frames = np.flatnonzero(fold.attention.rows[item] == row)
        return AttentionRecord(fold, item, int(frames[0]) if len(frames) else None)


NO_RUN = RunRecords()


def name_runs(runs: Sequence[Path]) -> list[str]:
    """Name runs by their folders, those of one name also by the folder around them.

    Raises:
        FacetError: a folder is given twice.
    """
    folders = [run.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise FacetError(f"--run {folder}: is given twice")
    names = [folder.name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{folder.parent.name}/{name}"
        for name, folder in zip(names, folders, strict=True)
    ]


def read_run(run: Path, cache: Cache) -> RunRecords:
    """Read the predictions and the attention of a run of `fit` or `crossval`, or what `predict` wrote about the cache.

    Raises:
        FacetError: no predictions, none for this cache, folds with different classes, or a damaged file.
    """
    files = find_predictions(run, cache.name)
    if not files:
        raise FacetError(
            f"--run {run}: no {PREDICTIONS_CSV} there or in its folds; give the folder of a tested run, or "
            f"write predictions with `python -m train predict {run} --cache {cache.path}`"
        )
    tables = [read_predictions(file) for file in files]
    if len({(table.class_names, table.several) for table in tables}) > 1:
        raise FacetError(f"--run {run}: its folds predict different classes; give the folder of one fold")
    levels = any("=" in word for table in tables for one in table.rows for word in (*one.labels, *one.predicted))
    if levels:
        tables = [dataclasses.replace(table, rows=tuple(map(_find_present, table.rows))) for table in tables]
    rows = group_pairs(
        (name, row) for row, sample in enumerate(cache.samples) for name in {sample.sample_id, sample.sequence} - {""}
    )
    tested = tuple(one for table in tables for one in table.rows if one.name in rows)
    if not tested:
        num = sum(len(table.rows) for table in tables)
        raise FacetError(f"--run {run}: none of its {num} predictions is for a scan or sequence of {cache.path}")
    predictions = {row: one for one in tested for row in rows[one.name]}
    folds, notes, missing = [], [], []
    for file, table in zip(files, tables, strict=True):
        by_name = {one.name: one for one in table.rows}
        own = ATTENTION_FILE if file.name == PREDICTIONS_CSV else f"attention-{cache.name}.safetensors"
        path = file.with_name(own)
        if not path.is_file():
            missing.append(file.parent)
            continue
        name = run.resolve().name if file.parent == run else str(file.parent.relative_to(run))
        fold, note = _read_fold(name, path, cache, by_name)
        folds += [fold] if fold else []
        notes += [note] if note else []
    if missing:
        which = "" if len(files) == 1 else f" in {len(missing)} of {len(files)} folds"
        more = "" if len(missing) == 1 else ", and so on for the others,"
        notes.append(f"no {ATTENTION_FILE}{which}: `python -m train evaluate {missing[0]}`{more} writes it")
    first = tables[0]
    return RunRecords(
        run.resolve().name,
        first.class_names,
        first.several,
        levels,
        predictions,
        tested,
        tuple(folds),
        tuple(notes),
        all(file.name == PREDICTIONS_CSV for file in files),
    )


def _find_present(one: Prediction) -> Prediction:
    """Return a prediction of intensities, such as AU6=3, as one of what is present: from 1, or from 0.5 where predicted."""

    def present(values: Sequence[str], lowest: float) -> tuple[str, ...]:
        pairs = (value.partition("=") for value in values)
        return tuple(name for name, _, level in pairs if level and float(level) >= lowest)

    return dataclasses.replace(one, labels=present(one.labels, 1), predicted=present(one.predicted, 0.5))


def _read_fold(name: str, path: Path, cache: Cache, predictions: Mapping[str, Prediction]) -> tuple[Fold | None, str]:
    """Read a fold's attention; None if the cache has other images. Also returns a note on what does not match, or ""."""
    attention, settings = read_attention(path), cache.info.settings
    views = [str(view) for view in settings.views]
    if not ({*attention.views} <= {*views} and {*attention.modalities} <= {*settings.modalities}):
        return None, f"{name} used other views or modalities than those of this cache"
    items = _match_items(attention, cache.samples)
    num_others = len(attention.names) - len(items)
    note = f"{name} tested {num_others} faces that are not in this cache" if num_others else ""
    return Fold(name, path, attention, items, predictions, tuple(views.index(view) for view in attention.views)), note


def _match_items(attention: Attention, samples: Sequence[Sample]) -> tuple[int, ...]:
    """Return the items whose rows have the item's name in this cache: row numbers alone could be another cache's."""

    def matches(name: str, row: int) -> bool:
        return 0 <= row < len(samples) and name in (samples[row].sample_id, samples[row].sequence)

    items = enumerate(zip(attention.names, attention.rows.tolist(), strict=True))
    return tuple(item for item, (name, rows) in items if all(matches(name, row) for row in rows))
