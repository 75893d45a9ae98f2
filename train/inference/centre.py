"""Centre the scores of each subject's scans: what a face looks like at rest is no expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from shared.labels import NEUTRAL
from shared.pairs import group_pairs

# How much of the neutral scan's scores is subtracted. They are uncertain, too: it is a single scan, of no trained class.
AT_REST_WEIGHT = 0.5

# Data sets that show every expression of every subject equally often: posed on request, after a list.
_BALANCED_DATASETS = ("bu3dfe", "bu4dfe")


def choose_centring(dataset: str) -> str:
    """Return how scores of an untrained model are centred by default."""
    return "subject" if dataset in _BALANCED_DATASETS else "none"


def centre_logits(
    logits: np.ndarray, subjects: Sequence[str], by: str, at_rest: np.ndarray | None = None
) -> np.ndarray:
    """Subtract from each class's logit that of the subject's neutral scan, or its mean over scans, of the subject or all.

    A narrow mouth or low brows raise the score of one class in all scans of a person. The mean over scans that show every class
    about equally often is that person's share, as in the person-specific normalisation of Baltrušaitis, Mahmoud & Robinson
    2015, "Cross-dataset learning and person-specific normalisation for automatic action unit detection". Where a
    person shows one class most of the time, it is subtracted, too: there, do not centre. A neutral scan gives the
    same offset, less exactly, and does not depend on the subject's other scans.

    Args:
        logits: f32 (n, C).
        subjects: of each row.
        by: none, neutral, subject, or all. neutral: AT_REST_WEIGHT times `at_rest` is subtracted. subject: one with fewer
            scans than classes takes the mean over all scans; with fewer scans than classes in all, nothing changes.
        at_rest: f32 (n, C), logits of the same subject's neutral scans, NaN where there is none: that row does not change.
    Returns:
        f32 (n, C).
    """
    num, num_classes = logits.shape
    if by == NEUTRAL:
        return logits if at_rest is None else logits - AT_REST_WEIGHT * np.nan_to_num(at_rest, nan=0.0)
    if by == "none" or num < num_classes:
        return logits
    means = np.broadcast_to(logits.mean(0), logits.shape).copy()
    names = np.array(subjects)
    for subject in _find_own_mean(subjects, num_classes) if by == "subject" else ():
        rows = names == subject
        means[rows] = logits[rows].mean(0)
    centred: np.ndarray = logits - means
    return centred


def describe_centring(subjects: Sequence[str], class_names: Sequence[str], num_classes: int, by: str) -> list[str]:
    """Return where `centre_logits` does not do what `by` says, and where its assumption does not hold, a line each.

    Args:
        subjects: of each row. class_names: the known class of each row; "" = unknown.
    """
    if by == "none":
        return []
    num = len(subjects)
    if num < num_classes:
        return [f"scores are not centred: {num} are too few for {num_classes} classes, so each scan is decided alone"]
    own = _find_own_mean(subjects, num_classes) if by == "subject" else set()
    lines = []
    if by == "subject" and (few := [one for one in subjects if one not in own]):
        lines.append(
            f"{len(few)} of {num} scores are centred by the mean over all: of subjects ({len(set(few))}) with fewer scans than "
            f"there are classes ({num_classes})"
        )
    counts = Counter(zip(subjects, class_names, strict=True))
    shown = group_pairs((subject, times) for (subject, name), times in counts.items() if subject in own and name)
    if uneven := [nums for nums in shown.values() if len(nums) < num_classes or max(nums) > 2 * min(nums)]:
        lines.append(
            f"centring takes every subject to show all classes about equally often, which {len(uneven)} of {len(own)} subjects "
            "do not: what they show most is subtracted, too"
        )
    return lines


def _find_own_mean(subjects: Sequence[str], num_classes: int) -> set[str]:
    """Return the subjects who have at least as many scans as there are classes."""
    return {subject for subject, num in Counter(subjects).items() if num >= num_classes}
