"""Find scans that appear under two subjects' names, by hashes of their cached images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from shared.cache import Cache
from shared.errors import CacheError
from shared.modalities import MODALITIES, get_modality
from shared.schema import Sample, View
from shared.store.paths import is_remote

HASH_SIDE = 32
# Bits of HASH_SIDE² in which two front images may differ and count as nearly the same. Measured at 32, 96 and 224 pixels on 9
# people of two sources: a scan saved again as PLY or OBJ to 0.01 mm, as JPEG, or turned by 1° before it was aligned: 0 to 14
# (texture), 0 to 5 (normal), 0 to 4 (depth); its landmarks shifted by 0.5 mm: 0 to 15. Two of 24 synthetic people: 53, 30, 35
# and more; of 8 others 80, 65, 68. Halfway on a scale of ratios lies 24.
ALIKE_BITS = 24
# Different scans of one subject come as near as that: an expression of neighbouring intensity differs in 5 to 72 (normals 4 to
# 51), beginnings of two recordings in 0 and more. So only copies that hardly changed are reported.
ALIKE_BITS_OF_ONE_SUBJECT = 4
# An image of nearly one brightness (black, or empty) resembles all others of its kind, so it is not compared.
MIN_FRACTION_SET = 1 / 32
# Images compared before a training, evenly over larger caches. All of BU-3DFE or Bosphorus; an object store charges by the
# byte. Of each sequence only three frames are compared.
MOST_COMPARED, MOST_COMPARED_REMOTELY = 5000, 2500
_BATCH, _BLOCK, _CACHED = 64, 512, 8

# Modalities by use: every valid row has those without colour, and normals distinguish people best.
BY_SHAPE = sorted(MODALITIES, key=lambda name: MODALITIES[name].is_colour)

Hashes = Mapping[str, np.ndarray]  # of a row's front image: modality → bits
CacheRow = tuple[int, int]  # index of a cache, row


def hash_image(modality: str, pixels: np.ndarray) -> np.ndarray:
    """Return a difference hash of a downscaled view, bool (about HASH_SIDE²,), fewer bits of small images.

    A bit compares a patch with its left neighbour: whether it is brighter or, for depth, whether the surface bends toward the
    viewer there. Overall brightness and distance do not matter.

    Args:
        pixels: (H, W, …), as stored.
    """
    kind = get_modality(modality)
    values = kind.measure_slopes(pixels)
    height, width = values.shape[:2]
    rows = np.arange(min(HASH_SIDE, height)) * height // min(HASH_SIDE, height)
    num_columns = min(HASH_SIDE + kind.slope_order, width)
    columns = np.arange(num_columns) * width // num_columns
    dtype = np.float32 if values.dtype.kind == "f" else np.int64
    sums = np.add.reduceat(values.reshape(height, -1), rows, axis=0, dtype=dtype)
    sums = np.add.reduceat(sums.reshape(len(rows), width, -1).sum(-1), columns, axis=1)
    widths = np.diff(columns, append=width)
    slopes = np.diff(sums / widths, axis=1)  # compared within a row of patches: its height does not matter
    if kind.slope_order == 2:
        slopes = np.diff(slopes / np.diff(columns + widths / 2), axis=1)
    bits: np.ndarray = (slopes > 0).ravel()
    return bits


def count_different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the number of bits in which each of bool (n, d) differs from each of bool (m, d): i32 (n, m)."""
    first, second = a.astype(np.float32), b.astype(np.float32)  # a product of floats is BLAS; exact below 2²⁴
    different: np.ndarray = np.rint(first.sum(1)[:, None] + second.sum(1) - 2 * (first @ second.T)).astype(np.int32)
    return different


def find_alike(
    samples: Sequence[Sample], rows: Sequence[int], hashes: Sequence[Hashes], *, since: int = 0, most: int | None = None
) -> list[tuple[int, int, int]]:
    """Return pairs of rows that are nearly the same in every modality that both have, the most alike first.

    Frames of one subject's recordings are left out: neighbours are alike by nature, and so are the faces they begin from.

    Args:
        samples: of the cache. Two rows of one subject are a pair only where they hardly differ.
        hashes: of each of `rows`.
        since: only pairs whose second index in `rows` is that or later.
        most: the number of pairs; None: all.
    Returns:
        (row, row, the most bits in which one modality differs).
    """
    chosen = [samples[row] for row in rows]
    subjects = np.unique([sample.subject for sample in chosen], return_inverse=True)[1]
    # The most bits between two rows of one subject; −1 for frames: recordings have pairs by the million.
    of_one = np.array([ALIKE_BITS_OF_ONE_SUBJECT if sample.frame is None else -1 for sample in chosen])
    tables = [_tabulate(hashes, modality) for modality in MODALITIES if any(modality in one for one in hashes)]
    number, found = np.asarray(rows), []
    for start in range(since, len(rows), _BLOCK):
        end = min(start + _BLOCK, len(rows))
        limit = np.where(subjects[:end, None] == subjects[start:end], of_one[:end, None], ALIKE_BITS)
        worst = np.full(limit.shape, -1, np.int32)
        fits = np.arange(end)[:, None] < np.arange(start, end)
        for known, bits in tables:
            both = known[:end, None] & known[start:end]
            different = count_different(bits[:end], bits[start:end])
            fits &= ~both | (different * HASH_SIDE**2 <= limit * bits.shape[1])  # small images: in proportion
            worst = np.where(both, np.maximum(worst, different), worst)
        a, b = np.nonzero(fits & (worst >= 0))
        first, second = number[a], number[start + b]
        found.append(np.stack([np.minimum(first, second), np.maximum(first, second), worst[a, b]], axis=1))
    pairs = np.concatenate(found) if found else np.empty((0, 3), int)
    return [(a, b, bits) for a, b, bits in pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))[:most]].tolist()]


def _tabulate(hashes: Sequence[Hashes], modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Return known, bool (n,): rows whose image is not nearly uniform; and bits, bool (n, d), False where unknown."""
    found = [one.get(modality) for one in hashes]
    bits = np.zeros((len(found), max(len(one) for one in found if one is not None)), bool)
    for index, one in enumerate(found):
        if one is not None:
            bits[index] = one
    return bits.mean(1) >= MIN_FRACTION_SET, bits


# --- all of a cache, before a training ---


@dataclass(frozen=True)
class Compared:
    """The rows of a cache that are compared, ascending, and for each one the hash of its front image in one modality."""

    rows: tuple[int, ...]
    hashes: tuple[Hashes, ...]


def choose_compared(cache: Cache) -> list[int]:
    """Return valid rows, ascending: every single scan, and the first, middle and last frame of every sequence.

    Frames that belong to no sequence count as one sequence for each subject and task.
    """
    frames: dict[tuple[str, ...], list[int]] = {}
    rows = []
    for row, sample in enumerate(cache.samples):
        if sample.valid and sample.frame is not None:
            recording = (sample.sequence,) if sample.sequence else ("", sample.subject, sample.task)
            frames.setdefault(recording, []).append(row)
        elif sample.valid:
            rows.append(row)
    for members in frames.values():
        rows += {members[0], members[len(members) // 2], members[-1]}
    return sorted(rows)


def count_compared(cache: Cache) -> tuple[int, int]:
    """Return how many rows are compared before a training, and how many are left out of a large cache."""
    wanted = len(choose_compared(cache))
    num = min(wanted, _most_compared(cache))
    return num, wanted - num


def _most_compared(cache: Cache) -> int:
    return MOST_COMPARED_REMOTELY if is_remote(cache.path) else MOST_COMPARED


_HASHED: dict[tuple[str, str, View | None], Compared] = {}  # by content hash: an ablation prepares many trainings


def hash_faces(cache: Cache, modality: str, view: View | None = None) -> Compared:
    """Hash one modality of a view of `choose_compared`'s rows; damaged rows, or without it, are left out. None: the front view.

    BU-3DFE's 2,500 rows of 224 pixels take about 5 seconds on one core. Cached for the process's next call.

    Raises:
        StorageError: an object store does not answer.
    """
    view = view or _find_common_view([cache])
    key = (cache.info.content_hash, modality, view)
    if cache.info.content_hash and key in _HASHED:
        return _HASHED[key]
    wanted = choose_compared(cache)
    num = min(len(wanted), _most_compared(cache))
    chosen = [wanted[index * len(wanted) // num] for index in range(num)]
    hashes = _hash_rows(cache, modality, view, [row for row in chosen if cache.samples[row].has(modality)])
    _HASHED[key] = Compared(tuple(hashes), tuple({modality: bits} for bits in hashes.values()))
    while len(_HASHED) > _CACHED:
        del _HASHED[next(iter(_HASHED))]
    return _HASHED[key]


def _hash_rows(cache: Cache, modality: str, view: View | None, rows: Sequence[int]) -> dict[int, np.ndarray]:
    if not rows or view is None:
        return {}
    arrays = cache.with_views([view]).open_arrays()
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), _BATCH):
        batch = list(rows[start : start + _BATCH])
        try:
            images = dict(zip(batch, arrays.read(modality, batch), strict=True))
        except CacheError:  # one of them is damaged, which the training that needs it reports
            images = {}
            for row in batch:
                with suppress(CacheError):
                    images[row] = arrays.read(modality, [row])[0]
        found.update({row: hash_image(modality, image[0]) for row, image in images.items()})
    return found


def _find_common_view(caches: Sequence[Cache]) -> View | None:
    """Return the view nearest to the front that all caches hold, or None."""
    whole = [cache.with_all_views().info.settings for cache in caches]
    common = tuple(view for view in whole[0].views if all(view in settings.views for settings in whole))
    return common[dataclasses.replace(whole[0], views=common).front_view] if common else None


def find_common_image(caches: Sequence[Cache]) -> tuple[str, View] | None:
    """Return the modality and the view by which scans of these caches are compared; None if they have no image in common."""
    settings = [cache.info.settings for cache in caches]
    view, common = _find_common_view(caches), [m for m in BY_SHAPE if all(m in one.modalities for one in settings)]
    sides = {min(one.size_px, HASH_SIDE + 2) for one in settings}  # larger images have hashes of one length
    is_same_kind = len(sides) == len({one.dynamic for one in settings}) == 1
    return (common[0], view) if common and view and is_same_kind else None


def find_same_faces(caches: Sequence[Cache], subjects: Sequence[Sequence[str]]) -> list[tuple[CacheRow, CacheRow]]:
    """Return pairs of rows, of one cache or two, that are nearly the same (`find_alike`) and have different subjects.

    One modality of all rows is compared first, then the others of rows that are alike in it. Caches without a common image
    (`find_common_image`) are not compared.

    Args:
        subjects: of every row of each cache, as they are to be compared.
    Returns:
        (index of the cache, row) of both, the most alike first.
    """
    if (image := find_common_image(caches)) is None:
        return []
    first, view = image
    cache_rows: list[CacheRow] = []
    hashes: list[Hashes] = []
    for number, cache in enumerate(caches):
        found = hash_faces(cache, first, view)
        cache_rows += [(number, row) for row in found.rows]
        hashes += found.hashes
    samples = [dataclasses.replace(caches[n].samples[row], subject=subjects[n][row]) for n, row in cache_rows]

    def differ(pairs: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
        return [(a, b) for a, b, _ in pairs if samples[a].subject != samples[b].subject]

    candidates = sorted({i for pair in differ(find_alike(samples, range(len(cache_rows)), hashes)) for i in pair})
    whole = {cache_rows[i]: dict(hashes[i]) for i in candidates}
    for number, cache in enumerate(caches):
        for modality in cache.info.settings.modalities:
            rows = [row for n, row in whole if n == number and modality != first and cache.samples[row].has(modality)]
            for row, bits in _hash_rows(cache, modality, view, rows).items():
                whole[number, row][modality] = bits
    return [(cache_rows[a], cache_rows[b]) for a, b in differ(find_alike(samples, candidates, list(whole.values())))]
