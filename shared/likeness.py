"""One scan under two subjects' names, however it was saved: told by its cached pictures, alike in both stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from shared.cache import Cache
from shared.errors import CacheError
from shared.modalities import MODALITIES, get_modality
from shared.schema import Sample
from shared.store.paths import is_remote

HASH_SIDE = 32
# Bits of HASH_SIDE² in which two pictures from the front may differ and count as nearly the same. Measured at 32, 96 and 224
# pixels on 9 people of two sources: a scan saved anew as PLY or OBJ to 0.01 mm, as JPEG, or turned by 1° before it was aligned
# 0 to 14 (texture), 0 to 5 (normal), 0 to 4 (depth); its landmarks shifted by 0.5 mm 0 to 15. Two people of 24 drawn ones
# 53, 30, 35 and more, of 8 others 80, 65, 68. Halfway on a scale of ratios lies 24.
ALIKE_BITS = 24
# Of one subject honest scans come as near as that: an expression of neighbouring intensity differs in 5 to 72 (normals 4 to
# 51), beginnings of two recordings in 0 and more. So only copies that changed hardly at all are told.
ALIKE_BITS_OF_ONE_SUBJECT = 4
# A picture of nearly one brightness (black, or nothing in it) is like all others of its kind and tells nothing.
MIN_SHARE_SET = 1 / 32
# Pictures that are compared before a training, evenly over larger caches. All of BU-3DFE or Bosphorus; an object store charges
# by the byte. Of each sequence only three frames are.
MOST_COMPARED, MOST_COMPARED_REMOTELY = 5000, 2500
_BATCH, _BLOCK = 64, 512

# Modalities by use: every valid row has those without colour, and normals tell people apart best.
BY_SHAPE = sorted(MODALITIES, key=lambda name: MODALITIES[name].is_colour)

Hashes = Mapping[str, np.ndarray]  # of a row's picture from the front: modality → bits
Place = tuple[int, int]  # number of a cache, row


def hash_image(modality: str, pixels: np.ndarray) -> np.ndarray:
    """Tells each patch of a downscaled view from its neighbours in its row: bool (about HASH_SIDE²,), fewer of small images.

    Texture and normals: whether it is brighter than that to its left. Depth: whether the surface bends toward the viewer
    there, for all faces rise and fall alike. A difference hash tells nothing of overall brightness or distance.

    Args:
        pixels: (H, W, …), as stored.
    """
    order, grey = get_modality(modality).slope_order, get_modality(modality).measure_slopes(pixels)
    height, width = grey.shape[:2]
    rows = np.arange(min(HASH_SIDE, height)) * height // min(HASH_SIDE, height)
    num_columns = min(HASH_SIDE + order, width)
    columns = np.arange(num_columns) * width // num_columns
    kind = np.float32 if grey.dtype.kind == "f" else np.int64
    sums = np.add.reduceat(grey.reshape(height, -1), rows, axis=0, dtype=kind)
    sums = np.add.reduceat(sums.reshape(len(rows), width, -1).sum(-1), columns, axis=1)
    widths = np.diff(columns, append=width)
    rises = np.diff(sums / widths, axis=1)  # compared within a row of patches: its height does not matter
    if order == 2:
        rises = np.diff(rises / np.diff(columns + widths / 2), axis=1)
    bits: np.ndarray = (rises > 0).ravel()
    return bits


def count_different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bits in which each of bool (n, d) differs from each of bool (m, d): i32 (n, m)."""
    first, second = a.astype(np.float32), b.astype(np.float32)  # a product of floats is BLAS; exact below 2²⁴
    different: np.ndarray = np.rint(first.sum(1)[:, None] + second.sum(1) - 2 * (first @ second.T)).astype(np.int32)
    return different


def find_alike(
    samples: Sequence[Sample],
    rows: Sequence[int],
    hashes: Sequence[Hashes],
    *,
    since: int = 0,
    most: int | None = None,
) -> list[tuple[int, int, int]]:
    """Pairs of rows that look nearly the same in every modality that both have, and the most bits in which one of these
    differs; the most alike first.

    Frames of one subject's recordings are left out: neighbours are alike by nature, and so are the faces they begin from.

    Args:
        samples: subject and frame count; two rows of one subject are told only where they hardly differ at all.
        hashes: of each of `rows`.
        since: only pairs whose second place in `rows` is that or later.
        most: how many pairs are told; None: all.
    """
    told = [samples[row] for row in rows]
    subjects = np.unique([sample.subject for sample in told], return_inverse=True)[1]
    # Bits up to which a row is told with another of its subject. Left out here: recordings have pairs by the million.
    of_one = np.array([ALIKE_BITS_OF_ONE_SUBJECT if sample.frame is None else -1 for sample in told])
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
            fits &= ~both | (
                different * HASH_SIDE**2 <= limit * bits.shape[1]
            )  # fewer bits of small images: the same share
            worst = np.where(both, np.maximum(worst, different), worst)
        a, b = np.nonzero(fits & (worst >= 0))
        first, second = number[a], number[start + b]
        found.append(np.stack([np.minimum(first, second), np.maximum(first, second), worst[a, b]], axis=1))
    pairs = np.concatenate(found) if found else np.empty((0, 3), int)
    return [(a, b, bits) for a, b, bits in pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))[:most]].tolist()]


def _tabulate(hashes: Sequence[Hashes], modality: str) -> tuple[np.ndarray, np.ndarray]:
    """known: bool (n,), the rows with a picture that tells something; bits: bool (n, d), False where it is not known."""
    found = [one.get(modality) for one in hashes]
    bits = np.zeros((len(found), max(len(one) for one in found if one is not None)), bool)
    for place, one in enumerate(found):
        if one is not None:
            bits[place] = one
    return bits.mean(1) >= MIN_SHARE_SET, bits


# --- all of a cache, before a training ---


@dataclass(frozen=True)
class Compared:
    """The rows of a cache that are compared, and the hashes of their pictures."""

    rows: tuple[int, ...]
    hashes: tuple[Hashes, ...]


def choose_compared(cache: Cache) -> list[int]:
    """Valid rows, ascending: every single scan, and the first, middle and last frame of every sequence; so of the frames of a
    subject's task that belong to no sequence."""
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
    """How many rows are compared before a training, and how many are left out of a large cache."""
    wanted = len(choose_compared(cache))
    num = min(wanted, _most_compared(cache))
    return num, wanted - num


def _most_compared(cache: Cache) -> int:
    return MOST_COMPARED_REMOTELY if is_remote(cache.path) else MOST_COMPARED


_HASHED: dict[tuple[str, str], Compared] = {}  # by content hash and modality: an ablation prepares many trainings


def hash_faces(cache: Cache, modality: str) -> Compared:
    """Reads one modality of the rows of `choose_compared` from the front; a row that is damaged or lacks it is left out.

    BU-3DFE's 2,500 rows of 224 pixels take about 5 seconds on one core. Kept in memory for the process's next call.

    Raises:
        StorageError: an object store does not answer.
    """
    key = (cache.info.content_hash, modality)
    if cache.info.content_hash and key in _HASHED:
        return _HASHED[key]
    wanted = choose_compared(cache)
    num = min(len(wanted), _most_compared(cache))
    chosen = [wanted[place * len(wanted) // num] for place in range(num)]
    hashes = _hash_rows(cache, modality, [row for row in chosen if cache.samples[row].has(modality)])
    found = Compared(tuple(hashes), tuple({modality: bits} for bits in hashes.values()))
    _HASHED[key] = found
    while len(_HASHED) > 8:
        del _HASHED[next(iter(_HASHED))]
    return found


def _hash_rows(cache: Cache, modality: str, rows: Sequence[int]) -> dict[int, np.ndarray]:
    if not rows:
        return {}
    whole = cache.with_all_views()
    arrays = whole.with_views([whole.info.settings.views[whole.info.settings.front_view]]).open_arrays()
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), _BATCH):
        batch = list(rows[start : start + _BATCH])
        try:
            images = dict(zip(batch, arrays.read(modality, batch), strict=True))
        except CacheError:  # one of them is damaged, which the training that needs it says
            images = {}
            for row in batch:
                with suppress(CacheError):
                    images[row] = arrays.read(modality, [row])[0]
        found.update({row: hash_image(modality, image[0]) for row, image in images.items()})
    return found


def find_same_faces(caches: Sequence[Cache], subjects: Sequence[Sequence[str]]) -> list[tuple[Place, Place]]:
    """Pairs of rows, of one cache or two, that look nearly the same (`find_alike`) and bear different subjects' names.

    Compared is first one modality of all rows, then the others of those that are alike in it.

    Args:
        caches: with the same views and size. subjects: of every row of each cache, as they are to be compared.
    Returns:
        (number of the cache, row) of both, the most alike first.
    """
    places: list[Place] = []
    hashes: list[Hashes] = []
    common = [m for m in BY_SHAPE if all(m in cache.info.settings.modalities for cache in caches)]
    if not common:
        return []
    first = common[0]
    for number, cache in enumerate(caches):
        found = hash_faces(cache, first)
        places += [(number, row) for row in found.rows]
        hashes += found.hashes
    samples = [
        dataclasses.replace(caches[number].samples[row], subject=subjects[number][row]) for number, row in places
    ]

    def differ(pairs: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
        return [(a, b) for a, b, _ in pairs if samples[a].subject != samples[b].subject]

    candidates = sorted({place for pair in differ(find_alike(samples, range(len(places)), hashes)) for place in pair})
    whole = [dict(hashes[place]) for place in candidates]
    for number, cache in enumerate(caches):
        for modality in cache.info.settings.modalities:
            rows = {
                places[place][1]: one
                for place, one in zip(candidates, whole, strict=True)
                if modality != first and places[place][0] == number and samples[place].has(modality)
            }
            for row, bits in _hash_rows(cache, modality, list(rows)).items():
                rows[row][modality] = bits
    return [(places[a], places[b]) for a, b in differ(find_alike(samples, candidates, whole))]
