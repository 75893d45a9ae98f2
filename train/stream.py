"""Which samples a cache gives, and batches of them, read ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.cache import Cache
from shared.errors import FacetError
from shared.labels import NEUTRAL

READ_AHEAD = 3  # batches being read while one is computed
DEFAULT_FRAMES = 6


@dataclass(frozen=True)
class Item:
    """What one prediction is made for: a single scan, or a whole sequence."""

    name: str  # sample_id, or the sequence's name
    subject: str
    class_name: str  # empty: unlabelled
    rows: tuple[int, ...]  # valid rows of the cache, in time order; one for a scan
    place: int  # among the items of the cache: what augmentation is drawn from
    intensity: str = ""  # the data set's own words, empty where it has none: 01…04
    task: str = ""  # T1…T8


@dataclass(frozen=True)
class RawBatch:
    """B items as they are in the cache.

    images: modality → u8 (B, T, V, H, W, 3) or u16 (B, T, V, H, W), 0 where absent; present bool (B, T, M), in the order of
    the modalities asked for.
    """

    items: list[Item]
    images: dict[str, np.ndarray]
    present: np.ndarray


def find_items(cache: Cache, modalities: Sequence[str]) -> list[Item]:
    """Every scan and sequence of a cache with at least one valid image of the modalities, in the cache's order."""

    def usable(row: int) -> bool:
        sample = cache.samples[row]
        return sample.valid and any(sample.has(m) for m in modalities)

    frames: dict[str, list[int]] = {}
    for row, sample in enumerate(cache.samples):
        if sample.sequence and usable(row):
            frames.setdefault(sample.sequence, []).append(row)
    items: list[Item] = []
    for sequence in cache.sequences:
        rows = sorted(frames.get(sequence.sequence, []), key=lambda row: cache.samples[row].frame or 0)
        if rows:
            first = cache.samples[rows[0]]
            items.append(
                Item(
                    sequence.sequence,
                    sequence.subject,
                    sequence.label,
                    tuple(rows),
                    len(items),
                    first.intensity,
                    first.task,
                )
            )
    for row, sample in enumerate(cache.samples):
        if not sample.sequence and usable(row):
            items.append(
                Item(
                    sample.sample_id,
                    sample.subject,
                    sample.label,
                    (row,),
                    len(items),
                    sample.intensity,
                    sample.task,
                )
            )
    return items


def choose_classes(cache: Cache, wanted: Sequence[str]) -> tuple[str, ...]:
    """The classes to tell apart: those asked for, else the vocabulary without neutral where two others remain.

    Raises:
        FacetError: a class is not in the cache's vocabulary, or there are fewer than two.
    """
    known = cache.info.class_names
    if unknown := [name for name in wanted if name not in known]:
        raise FacetError(f"--classes: {', '.join(unknown)} not in the vocabulary of {cache.path} ({', '.join(known)})")
    others = [name for name in known if name != NEUTRAL]
    chosen = tuple(wanted) or tuple(others if len(others) >= 2 else known)
    if len(chosen) < 2:
        raise FacetError(f"{cache.path}: at least two classes are needed, found {', '.join(chosen) or 'none'}")
    return chosen


def choose_modalities(cache: Cache, wanted: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The modalities to look at, in the schema's order: those asked for, else those that every labelled row has.

    Raises:
        FacetError: the cache was not rendered with one of them, or rows have none in common.
    """
    there = cache.info.settings.modalities
    if missing := [m for m in wanted if m not in there]:
        raise FacetError(f"--modalities: {cache.path} holds no {', '.join(missing)} (it holds {', '.join(there)})")
    if wanted:
        return tuple(m for m in there if m in wanted)
    rows = [s for s in cache.samples if s.valid and s.label in classes]
    common = tuple(m for m in there if all(s.has(m) for s in rows))
    if not common:
        raise FacetError(
            f"{cache.path}: no modality is in every row; name some with --modalities (absent ones are masked)"
        )
    return common


def choose_frames(items: Sequence[Item], wanted: int) -> int:
    """Frames to sample from a sequence: as asked, else a few where there are sequences and one where there are scans."""
    return wanted or (DEFAULT_FRAMES if any(len(item.rows) > 1 for item in items) else 1)


def sample_rows(rows: Sequence[int], num_frames: int, jitter: Sequence[float] | None = None) -> list[int]:
    """One row from each of num_frames equal segments: its middle, or the point that jitter (0…1 each) says.

    Segment sampling as in Wang et al. 2016, "Temporal segment networks". Short sequences repeat rows.
    """
    within = np.full(num_frames, 0.5) if jitter is None else np.asarray(jitter)
    places = (np.arange(num_frames) + within) * len(rows) / num_frames
    return [rows[min(int(p), len(rows) - 1)] for p in places]


def epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """The order of training items in an epoch, a function of (seed, epoch) alone: every item once."""
    return np.random.default_rng([seed, epoch]).permutation(num_items)


def split_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive batches of nearly equal size, none above batch_size: no tiny last batch to spoil batch statistics."""
    return np.array_split(order, -(-len(order) // batch_size))


def stream_batches(
    cache: Cache,
    batches: Sequence[Sequence[Item]],
    modalities: Sequence[str],
    num_frames: int,
    jitter: tuple[int, int] | None = None,
) -> Iterator[RawBatch]:
    """Reads batches in the given order, a few ahead.

    Args:
        jitter: (seed, epoch): draw frames at random within their segments instead of the middle ones (training).
    Raises:
        CacheError: stored images are missing or damaged.
    """
    waiting: deque[tuple[list[Item], np.ndarray, dict[str, Any]]] = deque()
    remaining = iter(batches)

    def start_next() -> None:
        items = next(remaining, None)
        if items is None:
            return
        rows = np.array([_rows(item, num_frames, jitter) for item in items])
        present = np.array([[[cache.samples[r].has(m) for m in modalities] for r in sample] for sample in rows])
        reads = {m: cache.arrays.start(m, rows[present[..., i]]) for i, m in enumerate(modalities)}
        waiting.append((list(items), present, reads))

    for _ in range(READ_AHEAD):
        start_next()
    while waiting:
        items, present, reads = waiting.popleft()
        images = {}
        for index, modality in enumerate(modalities):
            mask, found = present[..., index], reads[modality].result()
            if mask.all():
                images[modality] = found.reshape(*mask.shape, *found.shape[1:])
            else:
                images[modality] = np.zeros((*mask.shape, *found.shape[1:]), found.dtype)
                images[modality][mask] = found
        start_next()
        yield RawBatch(items, images, present)


def _rows(item: Item, num_frames: int, jitter: tuple[int, int] | None) -> list[int]:
    if jitter is None or len(item.rows) == 1:
        return sample_rows(item.rows, num_frames)
    # The trailing 1 keeps these draws apart from those of augmentation, which come from the same three numbers.
    return sample_rows(
        item.rows, num_frames, np.random.default_rng([*jitter, item.place, 1]).random(num_frames).tolist()
    )
