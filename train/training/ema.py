"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """w̄ ← w̄ + (1 − d) (w − w̄) after every step, for the trained weights only.

    d = min(decay, (1 + t) / (10 + t)) in step t, as in TensorFlow's ExponentialMovingAverage, so that the initial weights do
    not dominate a short training. (torch.optim.swa_utils would also copy the frozen tower.)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in _trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average after step 0, 1, …"""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = _trained(model)
        torch._foreach_lerp_(list(self.weights.values()), [current[name] for name in self.weights], 1 - decay)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore the average of a checkpoint.

        Raises:
            KeyError, RuntimeError: the checkpoint is of another model.
        """
        for name, mean in self.weights.items():
            mean.copy_(weights[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Set the model's trained weights to the average while the block runs."""
        current = {name: parameter.detach().clone() for name, parameter in _trained(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in _trained(model).items():
                    parameter.copy_(current[name])

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Set the model's trained weights to the average."""
        for name, parameter in _trained(model).items():
            parameter.copy_(self.weights[name])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
