"""The text tower of a pretraining: taught alone where it is random, or frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from train.model.clip import encode_text
from train.pretraining.known_prompts import KnownPrompts
from train.training.optimizer import ADAM_BETAS, rate_at

TEXT_RATE = 5e-4  # of the text tower; at the image tower's rate a small one soon gives one vector for all texts
TEXT_STEPS, TEXT_SCALE = 150, 10.0  # steps in which a random text tower learns alone; factor of its cosines


def teach_text(clip: Any, known: KnownPrompts, seed: int) -> None:
    """Train a random text tower alone until it separates the prompts of classes and action units.

    At first it gives nearly the same vector for all texts (cosines above 0.9), and an image tower that is trained towards
    these learns next to nothing. Each prompt is classified by its cosines with the mean vectors of the groups.
    """
    parameters = [p for name, p in clip.named_parameters() if is_text(name)]
    optimizer = torch.optim.AdamW(parameters, lr=TEXT_RATE, weight_decay=0.0, betas=ADAM_BETAS)
    groups = known.groups.to(clip.logit_scale.device)
    member = F.one_hot(groups).float()
    generator = np.random.default_rng([seed, 3])
    for step in tqdm(range(TEXT_STEPS), desc="text tower", unit="step", delay=2):
        for group in optimizer.param_groups:
            group["lr"] = TEXT_RATE * rate_at(step, TEXT_STEPS, 0.1)
        half = torch.from_numpy(generator.random(len(groups)) < 0.5).to(groups.device)
        embeddings = encode_text(clip, known.tokens.to(groups.device))
        means = F.normalize((member * half[:, None]).T @ embeddings, dim=1)
        there = (member * half[:, None]).sum(0) > 0
        logits = (TEXT_SCALE * embeddings @ means.T).masked_fill(~there, -torch.inf)
        chosen = there[groups] & ~half
        if not bool(chosen.any()):
            continue
        loss = F.cross_entropy(logits[chosen], groups[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def freeze_text(clip: Any) -> None:
    for name, parameter in clip.named_parameters():
        parameter.requires_grad_(not is_text(name))


def is_text(name: str) -> bool:
    """Return whether a parameter of CLIP belongs to its text tower."""
    return not name.startswith("visual.") and name != "logit_scale"
