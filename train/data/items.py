"""What predictions are made for: the scans, sequences or frames of a cache, with what is known about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from shared.cache import Cache
from shared.errors import FacetError
from shared.labels import NEUTRAL, find_expression, plain_word
from shared.schema import RenderSettings, Sample
from shared.schema import Sequence as SequenceRow
from train.options import Options
from train.tasks.item import Item
from train.tasks.task import find_task

DEFAULT_FRAMES = 6
MAX_LACKING = 0.1  # fraction of rows that may lack a modality that is used by default
MAX_FRAMES_WITHOUT_APEX = 2  # no change over time can be seen in fewer than 3


def find_items(cache: Cache, modalities: Sequence[str], task: str = "classes", names: Sequence[str] = ()) -> list[Item]:
    """Return every scan and sequence of a cache with at least one valid image of the modalities, in the cache's order.

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
    """Return i8 (rows, names), -1 = unknown; None if the cache has no targets for some of the names."""
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
    if options.frame_sampling == "apex":
        items = keep_apex_windows(cache, items, options.frame_window)
    return items


def find_neutral(cache: Cache, options: Options) -> list[Item]:
    """Return the items that show people at rest, if scores are centred by them. Arguments and errors as `gather_items`."""
    if options.centre_scores != NEUTRAL:
        return []
    return [item for item in gather_items(cache, options) if item.class_name == NEUTRAL]


def check_neutral(cache: Cache, options: Options, neutral: Sequence[Item]) -> None:
    """Check that scores can be centred by neutral scans, if they are to be; neutral: as `find_neutral`.

    Raises:
        FacetError: --centre-scores neutral, and no subject of the cache has such a scan.
    """
    if options.centre_scores == NEUTRAL and not neutral:
        other = "; --reference onset compares with a sequence's first frame" * bool(cache.sequences)
        raise FacetError(f"{cache.path}: --centre-scores neutral: no subject has a neutral scan{other}")


def find_rows_in_use(items: Iterable[Item]) -> list[int]:
    """Return the cache rows that items use, references included, each once, ascending."""
    return sorted({row for item in items for row in (*item.rows, item.reference) if row is not None})


def is_labelled(item: Item, task: str, classes: Sequence[str]) -> bool:
    """Return whether an item has a label to train or test on."""
    return find_task(task).is_labelled(item, classes)


def describe_unlabelled(cache: Cache, items: Sequence[Item], task: str, classes: Sequence[str]) -> list[str]:
    """Return a note on sequences (or their frames) without labels; single scans without a label are common and not reported."""
    members = [item for item in items if cache.samples[item.rows[0]].sequence]
    if task == "classes":
        without, what = [item for item in members if not item.class_name], "sequences without a single label"
    else:
        without = [item for item in members if not is_labelled(item, task, classes)]
        what = f"{'frames' if find_task(task).every_frame else 'sequences'} of which none of the classes is known"
    if not without:
        return []
    return [f"left out: {len(without):,} of {len(members):,} {what} ({without[0].name}{', …' * (len(without) > 1)})"]


def describe_short_sequences(cache: Cache, items: Sequence[Item], num_frames: int) -> list[str]:
    """Return notes on sequences of which few frames are valid, of which fewer than `num_frames` are used, and of single frames
    that are compared with themselves."""
    whole = {s.sequence: s.num_frames for s in cache.sequences}
    members = [item for item in items if item.name in whole]
    valid = {item.name: sum(cache.samples[row].valid for row in cache.frames(item.name)) for item in members}
    notes = []
    for found, what in (
        (
            [i for i in members if 2 * valid[i.name] < whole[i.name]],
            "lost more than half of their frames, which are not valid",
        ),
        (
            [i for i in members if len(i.rows) < num_frames],
            f"have fewer than {num_frames} frames, so some are used repeatedly",
        ),
        ([i for i in members if i.rows == (i.reference,)], "have one frame, which is compared with itself"),
    ):
        if found:
            some = f"{found[0].name}: {valid[found[0].name]} of {whole[found[0].name]} valid{', …' * (len(found) > 1)}"
            notes.append(f"{len(found):,} of {len(members):,} sequences {what} ({some})")
    return notes


def describe_stabilising(cache: Cache, wanted: RenderSettings, *, whose: str) -> list[str]:
    """Return a note if the frames of a cache move with the head, and those that a model is trained on do not, or vice versa."""
    here, there = cache.info.settings.stabilised, wanted.stabilised
    if here == there or not cache.sequences or cache.info.settings.dynamic:
        return []
    words = "--stabilise" if there else "--no-stabilise"
    return [
        f"{cache.path} was built with{'' if here else 'out'} --stabilise, {whose} with{'' if there else 'out'}: heads "
        f"move differently in their sequences; `build … {words}` makes them alike"
    ]


# --- defaults that depend on the cache ---


def choose_classes(cache: Cache, wanted: Sequence[str], task: str = "classes") -> tuple[str, ...]:
    """Return the requested classes, or the defaults: one class of several, all classes except neutral if at least two remain;
    several at once, all emotions, or all action units that were coded.

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
    """Return the requested modalities, or those that at least nine of ten rows have, in the schema's order.

    A few missing images do not disable a modality: rows without it use the others. If many rows lack it, the user must
    decide, because the missing images may be related to the label.

    Args:
        rows: the rows in use if every modality were enabled.
    Returns:
        The modalities; notes on modalities left out, rows that lack a modality, and rows that lack all of them.
    Raises:
        FacetError: the cache was not rendered with one of them, or none is in nine of ten rows.
    """
    there = cache.info.settings.modalities
    if missing := [m for m in wanted if m not in there]:
        raise FacetError(f"--modalities: {cache.path} holds no {', '.join(missing)} (it holds {', '.join(there)})")
    samples = [cache.samples[row] for row in rows]
    unit = "frames" if cache.sequences else "scans"

    def count(lacking: Sequence[Sample]) -> tuple[str, str]:
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
            how_many, which = count(lacking)
            notes.append(f"{how_many} have no {modality}; their other modalities are used {which}")
        elif modality not in chosen and not wanted:  # then some rows lack it
            how_many, which = count(lacking)
            with_it = ",".join(m for m in there if m in chosen or m == modality)
            notes.append(f"{modality} is not used: {how_many} have none {which}; --modalities {with_it} uses it")
    if blind:
        how_many, which = count(blind)
        notes.append(f"{how_many} have no {' or '.join(chosen)} and are left out {which}")
    return chosen, tuple(notes)


def choose_frames(items: Sequence[Item], wanted: int) -> int:
    """Return the requested number of frames per sequence, or the default: DEFAULT_FRAMES for sequences, 1 for scans."""
    return wanted or (DEFAULT_FRAMES if any(len(item.rows) > 1 for item in items) else 1)


# --- apex windows and references ---


def keep_apex_windows(cache: Cache, items: Sequence[Item], window: int | None) -> list[Item]:
    """Cut sequences down to a window of frames around the apex; single scans are unchanged.

    Args:
        window: number of frames; None: half of each sequence. A window that would reach beyond an end is moved inside.
            Sequences of one or two frames, which have no estimated apex, are unchanged.
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
                    "depth in the cache, and 3 frames that show the face); use --frame-sampling uniform"
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
    """Set the reference row of every item, with which its face is compared; None if it has none.

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
