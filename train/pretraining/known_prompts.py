"""Prompts of classes and action units, and of which rows they are known to be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from shared.errors import CacheError
from shared.labels import NEUTRAL, is_action_unit
from train.model.clip import encode_text, tokenize
from train.pretraining.rows import CaptionedRows
from train.training.optimizer import ADAM_BETAS, rate_at

TEXT_RATE = 5e-4  # of the text tower; at the image tower's rate a small one soon gives one vector for all texts
TEXT_STEPS, TEXT_SCALE = 150, 10.0  # steps in which a random text tower learns alone; factor of its cosines


@dataclass(frozen=True)
class KnownPrompts:
    """Prompts of G classes and action units, and of which rows they are true.

    names: of the classes and action units. groups: of each prompt its index in names, i64 (n,); tokens i64 (n, L);
    embeddings f32 (n, d); is_unit: bool (G,). truth: of each source, i8 (N, G), 1 = true of the row, 0 = not, −1 = not known.
    """

    names: list[str]
    groups: Tensor
    tokens: Tensor
    embeddings: Tensor
    is_unit: Tensor
    truth: list[Tensor]

    def find_classes(self, source: CaptionedRows) -> list[int]:
        """Return the indices in names of a cache's classes with prompts, without neutral."""
        return [self.names.index(n) for n in source.cache.info.class_names if n != NEUTRAL and n in self.names]

    def draw(self, seed: int, step: int) -> Tensor:
        """Draw one prompt of each group, i64 (G,)."""
        keys = torch.from_numpy(np.random.default_rng([seed, step, 2]).random(len(self.groups)))
        order = torch.argsort(self.groups.double() + keys)
        firsts = torch.searchsorted(self.groups[order], torch.arange(len(self.is_unit)))
        return order[firsts]


def read_known_prompts(sources: Sequence[CaptionedRows], model: str) -> KnownPrompts | None:
    """Read the prompts of the caches' classes and action units, and which are true of each row; None without prompts."""
    prompts: dict[str, dict[str, np.ndarray]] = {}  # name → text → embedding
    for source in sources:
        try:
            text = source.cache.read_text(model)
        except CacheError:
            continue
        there = {*source.cache.info.class_names, *source.cache.info.au_names}
        for name, texts, vectors, mask in zip(text.class_names, text.prompts, text.embeddings, text.mask, strict=True):
            if name in there:
                prompts.setdefault(name, {}).update(zip(texts, vectors[mask], strict=True))
    if not prompts:
        return None
    names = list(prompts)
    truth = [find_truth(source, names) for source in sources]
    return KnownPrompts(
        names,
        torch.tensor([index for index, name in enumerate(names) for _ in prompts[name]]),
        tokenize(model, [prompt for name in names for prompt in prompts[name]]),
        torch.from_numpy(np.stack([vector for name in names for vector in prompts[name].values()])),
        torch.tensor([is_action_unit(name) for name in names]),
        truth,
    )


def find_truth(source: CaptionedRows, names: Sequence[str]) -> Tensor:
    """Return which classes and action units each row of a cache shows, i8 (N, G): 1, 0, or −1 = not known."""
    cache = source.cache
    truth = np.full((len(cache.samples), len(names)), -1, np.int8)
    labels = np.array([sample.label for sample in cache.samples])
    units = cache.arrays.read("aus", np.arange(len(labels))) if cache.info.au_names else np.empty((len(labels), 0))
    for index, name in enumerate(names):
        if name in cache.info.au_names:
            truth[:, index] = units[:, cache.info.au_names.index(name)]
        elif not is_action_unit(name):
            truth[labels != "", index] = labels[labels != ""] == name
    return torch.from_numpy(truth)


def teach_text(clip: Any, known: KnownPrompts, seed: int) -> None:
    """Train a random text tower alone until it tells the prompts of classes and action units apart.

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


def is_text(name: str) -> bool:
    """Return whether a parameter of CLIP belongs to its text tower."""
    return not name.startswith("visual.") and name != "logit_scale"
