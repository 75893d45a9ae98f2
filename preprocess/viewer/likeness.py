"""Faces that look alike: one under two names, one mirrored, one file twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from shared.schema import Sample

HASH_SIDE = 32
# Bits of HASH_SIDE² in which two pictures from the front may differ and count as nearly the same. Measured (224 px, texture;
# normals in brackets): a scan saved anew as JPEG, its landmarks shifted by 0.5 mm, or under another pose 0 to 15 (0 to 13);
# two people, 6 synthetic ones, 4 in 4D and 3 real scans, 59 (38) and more. Halfway on a scale of ratios lies 24.
ALIKE_BITS = 24
# Of one subject honest scans come as near as that: an expression of neighbouring intensity differs in 5 to 72 (4 to 51),
# beginnings of two recordings in 0 and more. So only copies that changed hardly at all are told.
ALIKE_BITS_OF_ONE_SUBJECT = 4
# A mirrored scan differs from its subject's others in fewer bits once it is mirrored back. Measured: two synthetic scans with
# mesh or texture mirrored, two real ones and a scan of somebody else 0.00 to 0.86 of the bits; 736 honest ones 0.995 and more.
MIRRORED_SHARE = 0.9
NUM_COMPARED = 64  # at most, of a subject's others
MIN_OTHERS = 3
_BLOCK = 512


def hash_image(images: dict[str, np.ndarray]) -> np.ndarray:
    """bool (HASH_SIDE²,), fewer for small images: whether each patch of a downscaled view is brighter than that to its left.

    Of the first modality there is. A difference hash: it tells nothing of overall brightness.
    """
    pixels = next(iter(images.values())).astype(np.float32)
    grey = pixels if pixels.ndim == 2 else pixels.mean(-1)
    height, width = grey.shape
    rows = np.arange(min(HASH_SIDE, height)) * height // min(HASH_SIDE, height)
    columns = np.arange(min(HASH_SIDE + 1, width)) * width // min(HASH_SIDE + 1, width)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1)
    small = sums / np.diff(
        columns, append=width
    )  # patches are compared within their row, so that its height does not matter
    bits: np.ndarray = (np.diff(small, axis=1) > 0).ravel()
    return bits


def mirror_image(modality: str, pixels: np.ndarray) -> np.ndarray:
    """A view (H, W, …) as the mirrored face would be stored from the front: normals' x changes its sign, too."""
    mirrored: np.ndarray = pixels[:, ::-1]
    if modality == "normal":
        x = mirrored[..., :1]
        mirrored = np.concatenate([np.where(x > 0, 256 - x.astype(np.int16), 0), mirrored[..., 1:]], axis=-1)
    return mirrored


def find_alike(
    samples: Sequence[Sample],
    rows: Sequence[int],
    hashes: Sequence[np.ndarray],
    *,
    since: int = 0,
    most: int | None = None,
) -> list[tuple[int, int, int]]:
    """Pairs of rows that look nearly the same, and the number of bits their hashes differ in; the most alike first.

    Frames of one subject's recordings are left out: neighbours are alike by nature, and so are the faces they begin from.

    Args:
        since: only pairs whose second place in `rows` is that or later.
        most: how many pairs are told; None: all.
    """
    told = [samples[row] for row in rows]
    subjects = np.unique([sample.subject for sample in told], return_inverse=True)[1]
    # Bits up to which a row is told with another of its subject. Left out here: recordings have pairs by the million.
    of_one = np.array([ALIKE_BITS_OF_ONE_SUBJECT if sample.frame is None else -1 for sample in told])
    number, found = np.asarray(rows), []
    for start in range(since, len(rows), _BLOCK):
        end = min(start + _BLOCK, len(rows))
        different = count_different(np.array(hashes[:end]), np.array(hashes[start:end]))
        limit = np.where(subjects[:end, None] == subjects[start:end], of_one[:end, None], ALIKE_BITS)
        earlier = np.arange(end)[:, None] < np.arange(start, end)
        a, b = np.nonzero(earlier & (different <= limit))
        first, second = number[a], number[start + b]
        found.append(np.stack([np.minimum(first, second), np.maximum(first, second), different[a, b]], axis=1))
    pairs = np.concatenate(found) if found else np.empty((0, 3), int)
    return [(a, b, bits) for a, b, bits in pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))[:most]].tolist()]


def find_mirrored(
    samples: Sequence[Sample], rows: Sequence[int], hashes: Sequence[np.ndarray], mirrored: Sequence[np.ndarray]
) -> list[tuple[int, int, int]]:
    """Rows that are more like their subject's others once they are mirrored.

    Args:
        hashes, mirrored: `hash_image` of each row as it is, and of its `mirror_image`.
    Returns:
        (row, bits, bits once mirrored), both the median over the others; the clearest first.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        groups[samples[row].subject, samples[row].modalities.split("+")[0]].append(place)
    found = []
    for (subject, _), places in groups.items():
        if not subject or len(places) <= MIN_OTHERS:
            continue
        step = -(-len(places) // NUM_COMPARED)
        others = np.array([hashes[place] for place in places[::step]])
        own = count_different(np.array([hashes[place] for place in places]), others).astype(float)
        back = count_different(np.array([mirrored[place] for place in places]), others).astype(float)
        itself = np.array(places)[:, None] == np.array(places[::step])
        own[itself] = back[itself] = np.nan
        for place, a, b in zip(places, np.nanmedian(own, axis=1), np.nanmedian(back, axis=1), strict=True):
            if b < MIRRORED_SHARE * a:
                found.append((rows[place], round(a), round(b)))
    return sorted(found, key=lambda item: (item[2] - item[1], item))


def count_different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bits in which each of bool (n, d) differs from each of bool (m, d): i32 (n, m)."""
    first, second = a.astype(np.float32), b.astype(np.float32)  # a product of floats is BLAS; exact below 2²⁴
    different: np.ndarray = np.rint(first.sum(1)[:, None] + second.sum(1) - 2 * (first @ second.T)).astype(np.int32)
    return different


def find_same_sources(samples: Sequence[Sample]) -> list[list[int]]:
    """Groups of valid rows made from the very same bytes, of all rows of a cache."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        if sample.valid and sample.source_hash:
            groups[sample.source_hash].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
