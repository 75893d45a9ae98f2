"""Validation of a pretraining, on held-out subjects."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from train.pretraining.known_prompts import KnownPrompts
from train.pretraining.rows import choose_front_images, order_rows, stream_steps
from train.pretraining.step import EmbeddedStep, Pretraining, embed_step


@torch.no_grad()
def validate(run: Pretraining) -> dict[str, Any]:
    """Measure the loss on held-out subjects, and zero-shot accuracy by the prompts of their classes except neutral.

    Each row counts with its image nearest to the front in every modality, and with its first caption. Zero-shot accuracy is
    that of single images, of single scans with a label.

    Returns:
        `validation_loss`, and `validation_guess`, what it is where all images look alike; `zero_shot`, modality → accuracy.
        What cannot be measured is absent.
    """
    num = sum(map(len, run.held_rows))
    if not num:
        return {}
    run.clip.eval()
    names = None if run.known is None else _embed_names(run, run.known)
    chosen = [choose_front_images(source) for source in run.sources]
    captions = [source.captions[:, 0] for source in run.sources]
    steps = order_rows(run.held_rows, -(-num // run.options.batch_size), run.options.seed, 0)
    total, guesses, num_images, scale = 0.0, 0.0, 0, run.clip.logit_scale.exp()
    right: dict[str, list[bool]] = {}
    for raw in stream_steps(run.sources, run.images, steps, chosen):
        step = embed_step(run, raw, chosen, captions)
        here = len(step.images)
        total += here * step.caption_loss(scale).item()
        guesses += here * math.log(here)
        num_images += here
        if run.known is not None and names is not None:
            for modality, is_right in _classify(step, run.known, names):
                right.setdefault(modality, []).append(is_right)
    measured: dict[str, Any] = {"validation_loss": total / num_images, "validation_guess": guesses / num_images}
    if right:
        measured["zero_shot"] = {name: sum(found) / len(found) for name, found in right.items()}
    return measured


def _embed_names(run: Pretraining, known: KnownPrompts) -> Tensor:
    """Return the mean embedding of the prompts of each class and action unit, f32 (G, d)."""
    embeddings = run.embed_texts(known, torch.arange(len(known.groups)))
    return torch.stack([embeddings[known.groups == index].mean(0) for index in range(len(known.names))])


def _classify(step: EmbeddedStep, known: KnownPrompts, vectors: Tensor) -> Iterator[tuple[str, bool]]:
    """Yield the modality of each image of a single scan with a label, and whether its class is the right one.

    Args:
        vectors: of the classes and action units, f32 (G, d).
    """
    split = step.images.split([len(rows) for _, rows in step.rows])
    for (source, rows), images, modalities in zip(step.rows, split, step.modalities, strict=True):
        among = known.find_classes(source)
        if len(among) < 2:
            continue
        names = [known.names[index] for index in among]
        predicted = (images @ vectors[among].T).argmax(1).tolist()
        for row, place, number in zip(rows, modalities, predicted, strict=True):
            sample = source.cache.samples[row]
            if sample.label in names and not sample.sequence:
                yield source.modalities[place], names[number] == sample.label
