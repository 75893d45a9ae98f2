"""Floating point operations of a step against a count by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_facet import make_batch, make_model

from train.model.tuning import checkpoint_activations, tune_tower
from train.training.flops import PEAK_BF16_FLOPS, count_flops_per_sample, find_peak_flops

# The "vit" of test_image_tower at 32 px: 16 patches of 8 x 8 px and a class token, width 32, 2 blocks, to 24 dimensions
WIDTH, TOKENS, PATCHES, NUM_BLOCKS, NUM_IMAGES = 32, 17, 16, 2, 6


def tower_forward() -> int:
    """Multiplications and additions of one image, by hand."""
    block = (
        TOKENS * 12 * WIDTH**2 + 2 * TOKENS**2 * WIDTH
    )  # q, k, v, out: 4 d²; MLP: 8 d²; scores and their sums: n² d each
    return 2 * (PATCHES * 3 * 8 * 8 * WIDTH + NUM_BLOCKS * block + WIDTH * 24)


def test_a_full_training_step_is_three_forward_passes() -> None:
    batch = make_batch(b=3)
    flops = count_flops_per_sample(make_model(fusion="mean", head="cosine"), batch)
    patches = 2 * PATCHES * 3 * 8 * 8 * WIDTH  # the pixels need no gradient
    head = 3 * 2 * NUM_IMAGES * 24 * 24  # the projection of each token
    assert flops == pytest.approx(NUM_IMAGES * (3 * tower_forward() - patches) + head, rel=0.001)


def test_what_is_frozen_costs_a_forward_pass() -> None:
    model = make_model(fusion="mean", head="cosine")
    tune_tower(model, "frozen")
    flops = count_flops_per_sample(model, make_batch())
    assert flops == pytest.approx(NUM_IMAGES * tower_forward() + 2 * 2 * NUM_IMAGES * 24 * 24, rel=0.001)


def test_what_is_computed_twice_counts_once_and_nothing_is_left_behind() -> None:
    model, batch = make_model(), make_batch()
    wanted = count_flops_per_sample(model, batch)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint_activations(model.tower)
    missing = replace(batch, present=batch.present.clone().fill_(False), complete=False)
    assert count_flops_per_sample(model, missing) == wanted
    assert model.tower.transformer.grad_checkpointing is True  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_peaks_of_known_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_peak_flops(torch.device("cpu")) is None
    for name, peak in (
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA L40", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert find_peak_flops(torch.device("cuda")) == peak, name
    assert max(PEAK_BF16_FLOPS.values()) < 1e16
