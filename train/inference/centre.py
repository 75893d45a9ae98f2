"""Centre the scores of each subject's scans: what a face looks like at rest is no expression. No label is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Data sets that show every expression of every subject equally often: posed on request, after a list.
_BALANCED_DATASETS = ("bu3dfe", "bu4dfe")


def choose_centring(dataset: str) -> str:
    """Return how scores of an untrained model are centred by default."""
    return "subject" if dataset in _BALANCED_DATASETS else "none"


def centre_logits(logits: np.ndarray, subjects: Sequence[str], by: str) -> np.ndarray:
    """Subtract from each class's logit its mean over the scans of the same subject, or over all scans.

    A narrow mouth or low brows raise the score of one class in all scans of a person. The mean over scans that show every class
    about equally often is that person's share, as in the person-specific normalisation of Baltrušaitis, Mahmoud & Robinson
    2015, "Cross-dataset learning and person-specific normalisation for automatic action unit detection". Where a
    person shows one class most of the time, it is subtracted, too: there, do not centre.

    Args:
        logits: f32 (n, C).
        subjects: of each row.
        by: none, subject, or all. A subject with fewer scans than classes takes the mean over all scans; with fewer
            scans than classes in all, nothing changes.
    Returns:
        f32 (n, C).
    """
    num, num_classes = logits.shape
    if by == "none" or num < num_classes:
        return logits
    means = np.broadcast_to(logits.mean(0), logits.shape).copy()
    names = np.array(subjects)
    for subject in set(subjects) if by == "subject" else ():
        rows = names == subject
        if rows.sum() >= num_classes:
            means[rows] = logits[rows].mean(0)
    centred: np.ndarray = logits - means
    return centred
