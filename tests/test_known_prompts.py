"""Prompts whose truth is known: which rows they are true of, their loss, and a text tower that learns to tell them apart."""

from __future__ import annotations

import math

import numpy as np
import open_clip
import pytest
import torch
from conftest import SEEN, TINY_CLIP, MakeCache
from torch.nn import functional as F

from preprocess.prompts import DEFAULT_PROMPTS, read_prompts
from shared.cache import open_cache
from shared.errors import CacheError
from train.pretraining.known_prompts import KnownPrompts, find_truth, read_known_prompts
from train.pretraining.loss import UNITS_WEIGHT, PromptLoss
from train.pretraining.rows import CaptionedRows
from train.pretraining.text_tower import teach_text


def test_what_is_true_of_a_row(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(unlabelled=(3,)))
    source = CaptionedRows(0, cache, ("normal",), np.zeros((len(cache.samples), 1), np.int64))
    truth = find_truth(source, ["happiness", "AU12", "anger"])
    for row, sample in enumerate(cache.samples):
        wanted = [int(sample.label == name) for name in ("happiness", "anger")] if sample.label else [-1, -1]
        assert truth[row, [0, 2]].tolist() == wanted
    assert (truth[:, 1] == -1).all()  # the cache codes no action units


def test_prompts_of_single_views_are_not_true_of_all(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(text_views=SEEN))
    source = CaptionedRows(0, cache, ("normal",), np.zeros((len(cache.samples), 1), np.int64))
    with pytest.raises(CacheError, match="its prompts differ by view"):
        read_known_prompts([source], cache.read_text().model)


def test_the_loss_is_that_of_each_known_pair() -> None:
    torch.manual_seed(0)
    images, vectors = (F.normalize(torch.randn(n, 6), dim=1) for n in (5, 4))
    is_unit = torch.tensor([False, True, False, True])
    truth = torch.tensor(
        [[1, 1, 0, -1], [-1, 0, -1, 1], [0, -1, 1, -1], [0, 0, 1, 0], [-1, -1, -1, -1]], dtype=torch.int8
    )
    loss = PromptLoss(is_unit)
    with torch.no_grad():
        loss.bias.copy_(torch.tensor([9.0, 0.3, 9.0, -0.7]))
        loss.log_scale.copy_(torch.tensor([4.0, 7.0]).log())
    of_classes, of_units = [], []
    for image, known in zip(images, truth.tolist(), strict=True):
        cosines = [float(image @ vector) for vector in vectors]
        if 1 in (known[0], known[2]):
            scores = np.exp([4 * cosines[0], 4 * cosines[2]])
            right, smooth = int(known[2] == 1), 0.05
            logs = np.log(scores / scores.sum())
            of_classes.append(-(1 - smooth) * logs[right] - smooth * logs.mean())
        for unit, bias in ((1, 0.3), (3, -0.7)):
            if known[unit] >= 0:
                yes = 1 / (1 + math.exp(-(7 * cosines[unit] + bias)))
                of_units.append(-math.log(yes if known[unit] else 1 - yes))
    wanted = np.mean(of_classes) + UNITS_WEIGHT * np.mean(of_units)
    assert loss(images, vectors, truth).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kept", [False, True])
def test_only_classes_or_only_units(kept: bool) -> None:
    images, vectors = torch.eye(3, 6), torch.eye(2, 6)
    value = PromptLoss(torch.tensor([kept, kept]))(
        images, vectors, torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.int8)
    )
    assert value.isfinite() and value > 0


def test_a_random_text_tower_learns_to_tell_prompts_apart() -> None:
    torch.manual_seed(0)
    clip = open_clip.CLIP(**TINY_CLIP)
    prompts = read_prompts(DEFAULT_PROMPTS)
    names = ["anger", "disgust", "fear", "happiness", "AU1", "AU12"]
    groups = torch.tensor([index for index, name in enumerate(names) for _ in prompts[name]])
    tokens = open_clip.tokenize(
        [text for name in names for text in prompts[name]], TINY_CLIP["text_cfg"]["context_length"]
    )
    known = KnownPrompts(names, groups, tokens, torch.empty(0), torch.zeros(6, dtype=torch.bool), [])

    def measure() -> tuple[float, float]:
        with torch.no_grad():
            embeddings = clip.encode_text(tokens, normalize=True)
        means = torch.stack([embeddings[groups == group].mean(0) for group in range(len(names))])
        means = F.normalize(means, dim=1)
        between = (means @ means.T)[~torch.eye(len(names), dtype=torch.bool)].mean().item()
        return between, ((embeddings @ means.T).argmax(1) == groups).float().mean().item()

    assert measure()[0] > 0.8
    teach_text(clip, known, seed=0)
    between, right = measure()
    assert between < 0.3 and right > 0.95
    drawn = torch.stack([known.draw(0, step) for step in range(200)])
    assert (groups[drawn] == torch.arange(len(names))).all()  # one prompt of each, in order
    assert set(drawn.flatten().tolist()) == set(range(len(groups)))
