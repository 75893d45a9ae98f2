"""Repeated training from embeddings: how soon a fold converges, what training folds at once saves, how long 1,000 folds take.

.venv/bin/python tests/benchmarks/repeated_training.py [--device cuda] [--models 16] [--steps 40]   (about 2 minutes on 2 cores)

Embeddings are synthetic, of Subset I's size (100 subjects, 1,200 scans, 3 views, 512 features): a class, a person, a view and
noise, so mixed that a head has something to learn. The trainer is the real one; only the image tower is left out. Whole
trainings are the product of seconds a step, measured here, and of steps; the fold that must converge is trained whole.
Exit code 0 when the targets are met, else 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import nn

from shared.schema import View
from train.config import Recipe
from train.data.batch_transform import cameras_rad
from train.data.embeddings import Embeddings
from train.data.items import Item
from train.losses.terms import Criterion
from train.model.facet import Batch, Facet
from train.protocols.folds import fold_names, leave_out_each, subject_folds
from train.studies.crossval.at_once.batches import Batches
from train.studies.crossval.at_once.model import Stack
from train.training.loop import TrainingSet
from train.training.optimizer import build_optimizer, rate_at, set_rate
from train.training.step import train_step

CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
VIEWS = (View(0), View(20), View(-20))
DIM = 512
SCANS_A_SUBJECT = 12  # six expressions, two intensities
RECIPE = Recipe(classes=CLASSES, modalities=("texture",), frames=1, tune="frozen", augment="flip")
P2_SUBJECTS, P2_FOLDS, P2_ROUNDS = 60, 10, 100
SHORT_EPOCHS = (3, 6, 10)
LONGEST_SECONDS = 30.0  # to within one point of the converged score


def make_data(num_subjects: int, device: torch.device) -> tuple[list[Item], np.ndarray, Embeddings]:
    """Items, labels i64 (n,), embeddings: as a CLIP tower gives them, the person outweighs the expression."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(len(CLASSES)), num_subjects * SCANS_A_SUBJECT // len(CLASSES))
    subjects = np.repeat(np.arange(num_subjects), SCANS_A_SUBJECT)
    kinds, people, views = (rng.normal(size=(n, DIM)) for n in (len(CLASSES), num_subjects, 2 * len(VIEWS)))
    own_way = rng.normal(size=(num_subjects, len(CLASSES), DIM))  # nobody smiles like another
    face = 0.2 * kinds[labels] + people[subjects] + 0.5 * own_way[subjects, labels]
    features = np.empty((2, len(labels), 1, len(VIEWS), DIM), np.float32)
    for copy in range(2):
        for view in range(len(VIEWS)):
            noise = rng.normal(size=face.shape)
            features[copy, :, 0, view] = 1.0 + face + 0.5 * views[copy * len(VIEWS) + view] + 0.7 * noise
    items = [Item(str(i), f"S{s:03d}", "", (i,), i) for i, s in enumerate(subjects)]
    table = Embeddings(torch.from_numpy(features).to(device), np.arange(len(items)), np.ones((len(items), 1), bool))
    return items, labels, table


def make_facet(device: torch.device) -> Facet:
    torch.manual_seed(RECIPE.seed)
    text = np.random.default_rng(1).normal(size=(len(CLASSES), DIM)) + 2
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return Facet(nn.Identity(), DIM, text.astype(np.float32), 14.3, num_modalities=1, freeze_tower=True).to(device)


class OneByOne:
    """One model, by the step that `fit` takes."""

    def __init__(self, training: TrainingSet, table: Embeddings, device: torch.device, recipe: Recipe = RECIPE) -> None:
        self.recipe = recipe
        self.batches = Batches([training], table, VIEWS, recipe)
        self.facet = make_facet(device).train()
        self.optimizer = build_optimizer(self.facet, recipe)
        self.broken = torch.zeros((), device=device)
        self.num_steps = recipe.epochs * training.steps_per_epoch(recipe.batch_size)

    def step(self, step: int) -> None:
        stacked = self.batches.at(step, 1)
        batch = Batch(None, stacked.present[0], stacked.cameras[0], True, None, stacked.features[0])
        set_rate(self.optimizer, rate_at(step, self.num_steps, self.recipe.warmup))
        train_step(self.facet, self.optimizer, batch, stacked.target[0], Criterion(), self.recipe, self.broken)


class AtOnce:
    """Many models, by the step that `crossval` takes."""

    def __init__(self, trainings: list[TrainingSet], table: Embeddings, device: torch.device) -> None:
        trainings = sorted(trainings, key=lambda t: -t.steps_per_epoch(RECIPE.batch_size))
        num_steps = [RECIPE.epochs * t.steps_per_epoch(RECIPE.batch_size) for t in trainings]
        self.batches = Batches(trainings, table, VIEWS, RECIPE)
        facet = make_facet(device)
        self.stack = Stack([dict(facet.named_parameters())] * len(trainings), facet, RECIPE, num_steps)

    def step(self, step: int) -> None:
        self.stack.step(step, self.batches.at(step, self.stack.num_active(step)), None)


def split(
    items: list[Item], labels: np.ndarray, num_folds: int, rounds: int = 1
) -> list[tuple[TrainingSet, np.ndarray]]:
    """Each fold's training set, and the places of its test items."""
    found = []
    for number in range(rounds):
        groups = subject_folds([item.subject for item in items], num_folds, number)
        for fold in leave_out_each(groups, fold_names(num_folds)):
            tested = np.array([item.subject in fold.test_subjects for item in items])
            chosen = [item for item, test in zip(items, tested, strict=True) if not test]
            found.append((TrainingSet(chosen, labels[~tested]), np.flatnonzero(tested)))
    return found


@torch.inference_mode()
def score(facet: Facet, table: Embeddings, rows: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy in %."""
    facet.eval()
    device = table.features.device
    features = table.gather(rows[:, None], None)
    present = torch.ones(len(rows), 1, 1, dtype=torch.bool, device=device)
    logits = facet(Batch(None, present, cameras_rad(VIEWS, len(rows), device), True, None, features)).logits
    facet.train()
    return 100 * float((logits.argmax(1).cpu().numpy() == labels[rows]).mean())


def wait(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_steps(trained: list[OneByOne | AtOnce], num_steps: int, device: torch.device) -> list[float]:
    """Seconds a step of each, in turns, the best third: others may be at work on the machine."""
    seconds: list[list[float]] = [[] for _ in trained]
    for step in range(num_steps + 3):
        for one, found in zip(trained, seconds, strict=True):
            started = wait(device)
            one.step(step)
            found.append(wait(device) - started)
    return [float(np.mean(np.sort(found[3:])[: max(1, num_steps // 3)])) for found in seconds]


def time_convergence(device: torch.device) -> bool:
    """Whole trainings of different lengths: the score of a schedule that has run out is what another is compared with."""
    items, labels, table = make_data(200, device)  # a fold of Subset I trains; all who are left over test, not 10 alone
    num = 90 * SCANS_A_SUBJECT
    tested = np.arange(num, len(items))
    print("| epochs | seconds | accuracy, % |\n|---|---|---|")
    found: dict[int, tuple[float, float]] = {}
    for epochs in (*SHORT_EPOCHS, RECIPE.epochs):
        one = OneByOne(TrainingSet(items[:num], labels[:num]), table, device, replace(RECIPE, epochs=epochs))
        started = wait(device)
        for step in range(one.num_steps):
            one.step(step)
        found[epochs] = wait(device) - started, score(one.facet, table, tested, labels)
        print(f"| {epochs} | {found[epochs][0]:.1f} | {found[epochs][1]:.1f} |", flush=True)
    converged = found[RECIPE.epochs][1]
    reached = min(seconds for seconds, accuracy in found.values() if accuracy > converged - 1)
    print(f"\nwithin 1 point of {converged:.1f} % after {reached:.1f} s (target: {LONGEST_SECONDS:.0f} s); "
          f"{num} samples train, {len(tested)} of other subjects are tested\n")  # fmt: skip
    return reached <= LONGEST_SECONDS


def time_at_once(device: torch.device, num_steps: int) -> None:
    items, labels, table = make_data(100, device)
    trainings = [training for training, _ in split(items, labels, 10)]
    single, stacked = time_steps(
        [OneByOne(trainings[0], table, device), AtOnce(trainings, table, device)], num_steps, device
    )
    steps = RECIPE.epochs * trainings[0].steps_per_epoch(RECIPE.batch_size)
    print("| Subset I, 10 folds | ms a step and fold | 10 folds, s | |\n|---|---|---|---|")
    print(f"| one by one | {1e3 * single:.2f} | {10 * single * steps:.0f} | 1.00x |")
    print(f"| at once | {1e2 * stacked:.2f} | {stacked * steps:.0f} | {10 * single / stacked:.2f}x |\n")


def time_p2(device: torch.device, num_models: int, num_steps: int) -> None:
    items, labels, table = make_data(P2_SUBJECTS, device)
    trainings = [training for training, _ in split(items, labels, P2_FOLDS, -(-num_models // P2_FOLDS))][:num_models]
    single, stacked = time_steps(
        [OneByOne(trainings[0], table, device), AtOnce(trainings, table, device)], num_steps, device
    )
    steps = RECIPE.epochs * trainings[0].steps_per_epoch(RECIPE.batch_size)
    num = P2_FOLDS * P2_ROUNDS
    print(f"| rule P2, {num} trainings of {steps} steps | ms a step and fold | minutes | |\n|---|---|---|---|")
    print(f"| one by one | {1e3 * single:.2f} | {num * steps * single / 60:.0f} | 1.00x |")
    print(f"| {num_models} at once | {1e3 * stacked / num_models:.2f} | {num * steps * stacked / num_models / 60:.0f} | "
          f"{num_models * single / stacked:.2f}x |")  # fmt: skip
    print(f"\nextrapolated from {num_steps} steps of {num_models} models; tests and files come on top\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", type=int, help="of rule P2 at once (default 16; on a GPU 250)")
    parser.add_argument("--steps", type=int, default=40, help="that are timed of each kind")
    parser.add_argument("--only", choices=("convergence", "at-once", "p2"))
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; {RECIPE.batch_size} samples a step, {RECIPE.epochs} epochs\n")
    reached = time_convergence(device) if chosen.only in (None, "convergence") else True
    if chosen.only in (None, "at-once"):
        time_at_once(device, chosen.steps)
    if chosen.only in (None, "p2"):
        time_p2(device, chosen.models or (250 if device.type == "cuda" else 16), chosen.steps)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
