"""Decide the class of a sequence from its frames, each classified alone: by majority vote, and by the mean probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shared.runs import Prediction
from train.runs.groups import GroupScore
from train.tasks.task import Task

COLUMN = "decision"
NO_VOTES = "no votes of frames: centred scores are those of whole sequences"
MAJORITY, MEAN = "majority vote of frames", "mean over frames"


def decide_by_frames(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return the class indices i64 (n,) of n sequences by MAJORITY and MEAN.

    Args:
        probabilities: f32 (n, T, C) of each frame. Of classes with equally many votes, the one of the larger mean is taken.
    """
    num_classes, mean = probabilities.shape[2], probabilities.mean(1)
    votes = (probabilities.argmax(2)[..., None] == np.arange(num_classes)).sum(1)
    return {MAJORITY: np.where(votes == votes.max(1, keepdims=True), mean, -1).argmax(1), MEAN: mean.argmax(1)}


def score_frame_votes(
    probabilities: np.ndarray, predictions: Sequence[Prediction], task: Task, classes: Sequence[str]
) -> list[GroupScore]:
    """Score both decisions of all sequences, beside the model's own.

    Args:
        probabilities: as in `decide_by_frames`, in the order of the predictions.
    """
    subjects = frozenset(one.subject for one in predictions)
    scores = []
    for name, chosen in decide_by_frames(probabilities).items():
        rows = [replace(one, predicted=(classes[index],)) for one, index in zip(predictions, chosen, strict=True)]
        metrics = task.compute_metrics(len(rows), task.count(rows, classes))
        scores.append(GroupScore(COLUMN, name, len(subjects), metrics, subjects))
    return scores
