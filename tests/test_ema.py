"""The moving average of the weights: its formula, what it leaves alone, how it starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.training.ema import Ema


def test_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    trained, norm, frozen = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2).requires_grad_(False)
    model = nn.Sequential(trained, norm, frozen)
    ema = Ema(model, 0.9)
    wanted = trained.weight.detach().double().clone()
    for step in range(200):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * trained.weight.detach().double()
        # In every step: later on, nothing is left of how it started.
        torch.testing.assert_close(ema.weights["0.weight"].double(), wanted, atol=1e-4, rtol=1e-4)
    assert set(ema.weights) == {"0.weight", "0.bias", "1.weight", "1.bias"}  # no frozen weights, no running statistics
    assert norm.running_mean is not None
    before = frozen.weight.clone(), norm.running_mean.clone()
    ema.copy_to(model)
    assert torch.equal(trained.weight, ema.weights["0.weight"])
    assert torch.equal(frozen.weight, before[0])
    assert torch.equal(norm.running_mean, before[1])
    assert trained.weight.requires_grad


def test_weights_of_another_model_are_refused() -> None:
    ema = Ema(nn.Linear(3, 2), 0.9)
    for other in ({}, {"weight": torch.zeros(5, 7), "bias": torch.zeros(2)}):
        with pytest.raises((KeyError, RuntimeError)):
            ema.load(other)
