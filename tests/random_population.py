"""Items of people who lack some of their recordings."""

from __future__ import annotations

from itertools import product

import numpy as np

from shared.labels import BP4D_TASKS, BP4DPLUS_TASKS, CLASS_NAMES
from train.tasks.item import Item

INTENSITIES = ("01", "02", "03", "04")


def make_items(people: int, absent: float, seed: int, dataset: str = "bu3dfe") -> list[Item]:
    """Items of a random population in random order: each subject lacks each of its recordings with probability `absent`."""
    random = np.random.default_rng(seed)
    emotions = [*CLASS_NAMES[dataset], ""]
    tasks_of = {"bp4d": BP4D_TASKS, "bp4dplus": BP4DPLUS_TASKS}.get(dataset, {})
    tasks = {name: task for task, name in tasks_of.items()}
    levels = INTENSITIES if dataset == "bu3dfe" else ("",)
    rows = [
        (f"S{person:03d}", name, level)
        for person, name, level in product(range(people), emotions, levels)
        if random.random() >= absent
    ]
    return [
        Item(f"{s}_{c}_{i}", s, c, (place,), place, i, tasks.get(c, ""), (1,))
        for place, (s, c, i) in enumerate(rows[k] for k in random.permutation(len(rows)))
    ]
