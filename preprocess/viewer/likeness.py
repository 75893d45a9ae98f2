"""Faces that are mirrored, and files that are there twice; what looks alike is told in shared/likeness.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from shared.likeness import count_different
from shared.modalities import get_modality
from shared.schema import Sample

# A mirrored scan differs from its subject's others in fewer bits once it is mirrored back. Measured: two synthetic scans with
# mesh or texture mirrored, two real ones and a scan of somebody else 0.00 to 0.86 of the bits; 736 honest ones 0.995 and more.
MIRRORED_SHARE = 0.9
NUM_COMPARED = 64  # at most, of a subject's others
MIN_OTHERS = 3


def mirror_image(modality: str, pixels: np.ndarray) -> np.ndarray:
    """A view (H, W, …) as the mirrored face would be stored from the front: normals' x changes its sign, too."""
    kind = get_modality(modality)
    mirrored: np.ndarray = kind.negate_x(np.flip(pixels, kind.column_axis).copy())
    return mirrored


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


def find_same_sources(samples: Sequence[Sample]) -> list[list[int]]:
    """Groups of valid rows made from the very same bytes, of all rows of a cache."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        if sample.valid and sample.source_hash:
            groups[sample.source_hash].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
