"""What predictions are made for: the scans, sequences or frames of a cache, with what is known about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from shared.cache import Cache
from shared.errors import FacetError
from shared.labels import NEUTRAL, find_expression, plain_word
from shared.schema import Sample
from shared.schema import Sequence as SequenceRow
from train.config import Options
from train.tasks.item import Item
from train.tasks.task import find_task

DEFAULT_FRAMES = 6
MAX_LACKING = 0.1  # of the rows in use, for a modality to be looked at unasked
MAX_FRAMES_WITHOUT_APEX = 2  # no change over time can be seen in fewer than 3


def find_items(cache: Cache, modalities: Sequence[str], task: str = "classes", names: Sequence[str] = ()) -> list[Item]:
    """Every scan and sequence of a cache with at least one valid image of the modalities, in the cache's order.

    Args:
        task: "aus" makes an item of every frame instead; "aus" and "targets" fill in the items' targets.
        names: the action units or emotions that targets are for.
    """

    def usable(row: int) -> bool:
        sample = cache.samples[row]
        return sample.valid and any(sample.has(m) for m in modalities)

    rows = [row for row in range(len(cache.samples)) if usable(row)]
    if find_task(task).every_frame:
        groups = [_single(cache, row) for row in rows]
    else:
        groups = [(s.sequence, s.label, tuple(members)) for s, members in _group_frames(cache, rows)]
        groups += [_single(cache, row) for row in rows if not cache.samples[row].sequence]
    targets = _read_targets(cache, task, names)
    items = []
    for index, (name, class_name, members) in enumerate(groups):
        first = cache.samples[members[0]]
        values = () if targets is None else tuple(targets[members[0]].tolist())
        items.append(Item(name, first.subject, class_name, members, index, first.intensity, first.task, values))
    return items


def _single(cache: Cache, row: int) -> tuple[str, str, tuple[int, ...]]:
    return cache.samples[row].sample_id, cache.samples[row].label, (row,)


def _group_frames(cache: Cache, rows: Iterable[int]) -> list[tuple[SequenceRow, list[int]]]:
    wanted = set(rows)
    groups = [(s, [row for row in cache.frames(s.sequence) if row in wanted]) for s in cache.sequences]
    return [(s, members) for s, members in groups if members]


def _read_targets(cache: Cache, task: str, names: Sequence[str]) -> np.ndarray | None:
    """i8 (rows, names), -1 where unknown; None where the cache knows nothing of some of them."""
    kind = find_task(task)
    known = {"aus": cache.info.au_names, "targets": cache.info.target_names}.get(kind.array, ())
    wanted = [kind.column(name) for name in names]
    if not known or not set(wanted) <= set(known):
        return None
    columns = [known.index(name) for name in wanted]
    table: np.ndarray = cache.arrays.read(kind.array, np.arange(len(cache.samples)))[:, columns]
    return table


def gather_items(cache: Cache, options: Options) -> list[Item]:
    """Return every item of a cache with its targets, its reference and its frames.

    Args:
        options: with task, classes and modalities resolved.
    Raises:
        FacetError: the options ask for an apex or a reference that the cache does not have.
    """
    modalities = options.modalities or ()
    items = find_items(cache, modalities, options.task or "classes", options.classes or ())
    if options.reference != "none":
        items = add_references(cache, items, modalities, options.reference)
    if options.sampling == "apex":
        items = keep_apex_windows(cache, items, options.window)
    return items


def find_rows_in_use(items: Iterable[Item]) -> list[int]:
    """The rows of the cache that items may be seen by, references included, each once, ascending."""
    return sorted({row for item in items for row in (*item.rows, item.reference) if row is not None})


def is_labelled(item: Item, task: str, classes: Sequence[str]) -> bool:
    """Whether anything can be learned from, or tested on, an item."""
    return find_task(task).is_labelled(item, classes)


def describe_unlabelled(cache: Cache, items: Sequence[Item], task: str, classes: Sequence[str]) -> list[str]:
    """A note on the sequences, or their frames, of which nothing is known; single scans without a label are nothing unusual."""
    members = [item for item in items if cache.samples[item.rows[0]].sequence]
    if task == "classes":
        without, what = [item for item in members if not item.class_name], "sequences without a single label"
    else:
        without = [item for item in members if not is_labelled(item, task, classes)]
        what = f"{'frames' if find_task(task).every_frame else 'sequences'} of which none of the classes is known"
    if not without:
        return []
    return [f"left out: {len(without):,} of {len(members):,} {what} ({without[0].name}{', …' * (len(without) > 1)})"]


# --- what a cache decides where the user did not ---


def choose_classes(cache: Cache, wanted: Sequence[str], task: str = "classes") -> tuple[str, ...]:
    """The classes to tell apart: those asked for, else the vocabulary without neutral where two others remain; for
    several at once all emotions, or all action units whose occurrence was coded.

    Raises:
        FacetError: a class is not in the cache's vocabulary, or there are too few.
    """
    kind = find_task(task)
    known, what = kind.known_classes(cache.info), kind.noun
    if not known:
        raise FacetError(f"{cache.path}: {cache.info.dataset} has no {what}; choose another --task or --protocol")
    plain = {plain_word(name): name for name in known}
    wanted = [name if name in known else plain.get(plain_word(name), name) for name in wanted]
    if unknown := [name for name in wanted if name not in known]:
        meant = [word for name in unknown if (word := find_expression(name)) in known and word is not None]
        hint = f"; did you mean {', '.join(meant)}?" if meant else ""
        raise FacetError(
            f"--classes: {', '.join(unknown)} not among the {what} of {cache.path} ({', '.join(known)}){hint}"
        )
    chosen = tuple(wanted) or kind.default_classes(known)
    if not kind.several and len(chosen) < 2:
        raise FacetError(f"{cache.path}: at least two classes are needed, found {', '.join(chosen) or 'none'}")
    return chosen


def choose_modalities(
    cache: Cache, wanted: Sequence[str], rows: Iterable[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modalities to look at, in the schema's order: those asked for, else those that nine of ten rows in use have.

    One lost picture must not cost a training all texture: a row that lacks a modality is seen without it. One that many rows
    lack is left to the user, for what they have in common may be what is to be learned.

    Args:
        rows: valid ones that would be in use if every modality were looked at.
    Returns:
        The modalities; notes: modalities left out for the rows that lack them, rows that are seen without one, and rows left
            out for they have none.
    Raises:
        FacetError: the cache was not rendered with one of them, or none is in nine of ten rows.
    """
    there = cache.info.settings.modalities
    if missing := [m for m in wanted if m not in there]:
        raise FacetError(f"--modalities: {cache.path} holds no {', '.join(missing)} (it holds {', '.join(there)})")
    samples = [cache.samples[row] for row in rows]
    unit = "frames" if cache.sequences else "scans"

    def tell(lacking: Sequence[Sample]) -> tuple[str, str]:
        return f"{len(lacking)} of {len(samples)} {unit}", f"({lacking[0].sample_id}{', …' * (len(lacking) > 1)})"

    without = {m: [s for s in samples if not s.has(m)] for m in there}
    chosen = tuple(m for m in there if (m in wanted if wanted else len(without[m]) <= MAX_LACKING * len(samples)))
    if not chosen:
        raise FacetError(
            f"{cache.path}: no modality is in nine of ten rows; name some with --modalities (absent ones are masked)"
        )
    notes = []
    blind = [s for s in samples if not any(s.has(m) for m in chosen)]
    for modality, lacking in without.items():
        if modality in chosen and len(lacking) > len(blind):
            how_many, which = tell(lacking)
            notes.append(f"{how_many} have no {modality} and are seen without it {which}")
        elif modality not in chosen and not wanted:  # then some rows lack it
            how_many, which = tell(lacking)
            takes = ",".join(m for m in there if m in chosen or m == modality)
            notes.append(f"{modality} left out: {how_many} have none {which}; --modalities {takes} takes it")
    if blind:
        how_many, which = tell(blind)
        notes.append(f"{how_many} have no {' or '.join(chosen)} and are left out {which}")
    return chosen, tuple(notes)


def choose_frames(items: Sequence[Item], wanted: int) -> int:
    """Frames to sample from a sequence: as asked, else a few where there are sequences and one where there are scans."""
    return wanted or (DEFAULT_FRAMES if any(len(item.rows) > 1 for item in items) else 1)


# --- which of a sequence's frames count, and what a face is compared with ---


def keep_apex_windows(cache: Cache, items: Sequence[Item], window: int | None) -> list[Item]:
    """Sequences cut down to a window of frames about their apex; single scans stay.

    Args:
        window: frames; None: half of each sequence. A window that would reach beyond an end is moved inside. One or two frames,
            of which no apex can be estimated, stay.
    Raises:
        FacetError: a longer sequence has no apex, neither given nor estimated.
    """
    apex = {s.sequence: s.apex for s in cache.sequences}
    cut = []
    for item in items:
        if len(item.rows) > 1 and (len(item.rows) > MAX_FRAMES_WITHOUT_APEX or apex.get(item.name) is not None):
            moment = apex.get(item.name)
            if moment is None:
                raise FacetError(
                    f"{cache.path}: sequence {item.name} has no apex, given or estimated (estimates need the modality "
                    "depth in the cache, and 3 frames that show the face); use --sampling uniform"
                )
            item = dataclasses.replace(item, rows=_window(cache, item.rows, moment, window))
        cut.append(item)
    return cut


def _window(cache: Cache, rows: tuple[int, ...], apex: int, window: int | None) -> tuple[int, ...]:
    nearest = min(range(len(rows)), key=lambda index: abs((cache.samples[rows[index]].frame or 0) - apex))
    length = min(window or -(-len(rows) // 2), len(rows))
    first = min(max(nearest - length // 2, 0), len(rows) - length)
    return rows[first : first + length]


def add_references(cache: Cache, items: Sequence[Item], modalities: Sequence[str], kind: str) -> list[Item]:
    """Gives every item the row that its face is compared with, None where there is none.

    Args:
        kind: "neutral": the subject's first neutral scan; "onset": the sequence's given onset, else its first frame.
    Raises:
        FacetError: no item has such a row.
    """
    found: list[int | None]
    if kind == "neutral":
        neutral: dict[str, int] = {}
        for row, sample in enumerate(cache.samples):
            if sample.valid and sample.label == NEUTRAL and any(sample.has(m) for m in modalities):
                neutral.setdefault(sample.subject, row)
        found = [neutral.get(item.subject) for item in items]
        lacking = "no subject has a neutral scan; --reference onset compares with a sequence's first frame"
    else:
        sequences = {s.sequence: rows for s, rows in _group_frames(cache, (row for i in items for row in i.rows))}
        given = {s.sequence: s.onset for s in cache.sequences}
        found = [_onset_row(cache, sequences.get(cache.samples[i.rows[0]].sequence, []), given) for i in items]
        lacking = "there are no sequences; --reference neutral compares with the subject's neutral scan"
    if all(row is None for row in found):
        raise FacetError(f"{cache.path}: --reference {kind}: {lacking}")
    return [dataclasses.replace(item, reference=row) for item, row in zip(items, found, strict=True)]


def _onset_row(cache: Cache, rows: Sequence[int], given: dict[str, int | None]) -> int | None:
    if not rows:
        return None
    onset = given.get(cache.samples[rows[0]].sequence)
    if onset is None:
        return rows[0]
    return min(rows, key=lambda row: abs((cache.samples[row].frame or 0) - onset))
