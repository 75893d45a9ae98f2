"""Prompts of classes and action units, and of which rows they are known to be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shared.errors import CacheError
from shared.labels import NEUTRAL, is_action_unit
from train.model.clip import tokenize
from train.pretraining.rows import CaptionedRows


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
    """Read the prompts of the caches' classes and action units, and which are true of each row; None without prompts.

    Raises:
        CacheError: prompts differ by view.
    """
    prompts: dict[str, dict[str, np.ndarray]] = {}  # name → text → embedding
    for source in sources:
        try:
            text = source.cache.read_text(model)
        except CacheError:
            continue
        if text.views:
            raise CacheError(
                f"{source.cache.path}: its prompts differ by view, and a pretraining takes them as true of all views; "
                "run `python -m preprocess prompts` again, without {view} or --per-view"
            )
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
