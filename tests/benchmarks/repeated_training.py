"""Repeated training from embeddings: how soon a fold converges.

.venv/bin/python tests/benchmarks/repeated_training.py [--device cuda]   (about 1 minute on 2 cores)

Embeddings are synthetic, of Subset I's size (100 subjects, 1,200 scans, 3 views, 512 features): a class, a person, a view and
noise, so mixed that a head has something to learn. The trainer is the real one; only the image tower is left out.
Exit code 0 when the target is met, else 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from recipes import make_recipe
from torch import nn

from shared.schema import View
from train.config import TowerConfig
from train.data.augment import draw_parameters
from train.data.batch_transform import BatchTransform, cameras_rad
from train.data.embeddings import Embeddings
from train.data.order import epoch_batches
from train.model.batch import Batch
from train.model.facet import Facet, FacetConfig
from train.options import Recipe
from train.tasks.criterion import CrossEntropy
from train.tasks.item import Item
from train.training.optimizer import build_optimizer, rate_at, set_rate
from train.training.step import train_step

CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
VIEWS = (View(0), View(20), View(-20))
DIM = 512
SCANS_A_SUBJECT = 12  # six expressions, two intensities
RECIPE = make_recipe(classes=CLASSES, modalities=("texture",), frames=1, tune="frozen", augment="flip")
TOWER = TowerConfig("none", "", {"embed_dim": DIM}, 224, (0.5,) * 3, (0.5,) * 3, "", True)
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
    return Facet(nn.Identity(), text.astype(np.float32), 14.3, FacetConfig(tower_dim=DIM, num_modalities=1)).to(device)


class Training:
    """One model, trained by the step that `fit` takes, on embeddings in memory."""

    def __init__(self, items: list[Item], labels: np.ndarray, table: Embeddings, recipe: Recipe) -> None:
        device = table.features.device
        self.items, self.labels, self.recipe = items, labels, recipe
        self.transform = BatchTransform(recipe.modalities, VIEWS, TOWER, device, only_flip=True, embeddings=table)
        self.table = table
        self.facet = make_facet(device).train()
        self.optimizer = build_optimizer(self.facet, recipe)
        self.broken = torch.zeros((), device=device)

    def run(self) -> None:
        """Train every epoch."""
        recipe, step = self.recipe, 0
        num_steps = recipe.epochs * -(-len(self.items) // recipe.batch_size)
        for epoch in range(recipe.epochs):
            for batch in epoch_batches(self.labels, recipe.sampler, recipe.batch_size, recipe.seed, epoch):
                raw = self.table.choose([self.items[i] for i in batch], recipe.frames, (recipe.seed, epoch), False)
                parameters = draw_parameters(recipe.seed, epoch, [item.index for item in raw.items])
                target = torch.from_numpy(self.labels[batch]).to(self.broken.device)
                set_rate(self.optimizer, rate_at(step, num_steps, recipe.warmup))
                prepared = self.transform.prepare(raw, parameters)
                train_step(self.facet, self.optimizer, prepared, target, CrossEntropy(), self.broken)
                step += 1


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


def time_convergence(device: torch.device) -> bool:
    """Whole trainings of different lengths: the score of a schedule that has run out is what another is compared with."""
    items, labels, table = make_data(200, device)  # a fold of Subset I trains; all who are left over test, not 10 alone
    num = 90 * SCANS_A_SUBJECT
    tested = np.arange(num, len(items))
    print("| epochs | seconds | accuracy, % |\n|---|---|---|")
    found: dict[int, tuple[float, float]] = {}
    for epochs in (*SHORT_EPOCHS, RECIPE.epochs):
        one = Training(items[:num], labels[:num], table, replace(RECIPE, epochs=epochs))
        started = wait(device)
        one.run()
        found[epochs] = wait(device) - started, score(one.facet, table, tested, labels)
        print(f"| {epochs} | {found[epochs][0]:.1f} | {found[epochs][1]:.1f} |", flush=True)
    converged = found[RECIPE.epochs][1]
    reached = min(seconds for seconds, accuracy in found.values() if accuracy > converged - 1)
    print(f"\nwithin 1 point of {converged:.1f} % after {reached:.1f} s (target: {LONGEST_SECONDS:.0f} s); "
          f"{num} samples train, {len(tested)} of other subjects are tested\n")  # fmt: skip
    return reached <= LONGEST_SECONDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; {RECIPE.batch_size} samples a step, {RECIPE.epochs} epochs\n")
    return 0 if time_convergence(device) else 1


if __name__ == "__main__":
    sys.exit(main())
