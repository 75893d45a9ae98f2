"""Many small models as one: the step of `training.step`, taken by K models of one architecture, each on its own batch.

Weights are stacked, (K, …), and torch.func maps the model over them, so that K small matrix products become a large one.
Each model has its own gradient norm, its own state in the optimiser and its own learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from train.config import Recipe
from train.losses.terms import Criterion, compute_losses
from train.model.cvsa import HEAD_DIM
from train.model.facet import MAX_LOG_SCALE, Batch, Facet
from train.training.optimizer import build_optimizer, rate_at
from train.training.step import MAX_GRAD_NORM

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's own names of what it keeps of each weight


@dataclass(frozen=True)
class StackedBatch:
    """A batch for each of K models, padded to the same B.

    features f32 (K, B, T, M, V, d); present bool (K, B, T, M); cameras f32 (K, B, V, 2); target i64 (K, B) or i8 (K, B, C),
    −1 in rows that are padding; kept bool (K, B): the rows that are not; has_reference bool (K, B).
    """

    features: Tensor
    present: Tensor
    cameras: Tensor
    target: Tensor
    kept: Tensor
    complete: bool  # every image is present
    even: bool  # no row is padding
    has_reference: Tensor | None = None


@dataclass(frozen=True)
class StackedResult:
    """terms: name → f32 (K,); logits (K, B, C); face (K, B, d): as `StepResult`, of the models that took the step."""

    terms: dict[str, Tensor]
    logits: Tensor
    face: Tensor


class _Losses(nn.Module):
    """The model with its losses, as torch.func calls a module: with one model's weights."""

    def __init__(self, facet: Facet, recipe: Recipe) -> None:
        super().__init__()
        self.facet = facet
        self.recipe = recipe

    def forward(
        self, inputs: dict[str, Tensor], class_weight: Tensor | None, complete: bool, even: bool
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        batch = Batch(
            images=None,
            present=inputs["present"],
            cameras=inputs["cameras"],
            complete=complete,
            has_reference=inputs.get("has_reference"),
            features=inputs["features"],
        )
        output = self.facet(batch)
        if not even:  # not all terms have labels to tell padding by
            frames_each = len(output.mask) // len(inputs["kept"])
            kept = inputs["kept"][:, None].expand(-1, frames_each).reshape(-1, 1)
            output = replace(output, mask=output.mask & kept)
        criterion = Criterion(self.recipe.is_multilabel, class_weight)
        terms = compute_losses(self.facet, output, inputs["target"], criterion, self.recipe.loss_weights)
        return terms, output.logits, output.face


class Stack:
    """K models in training. Those with more steps to take come first: the others leave when they have taken theirs.

    weights: name → (K, …), every trained parameter. ema: their moving averages; None where none is kept.
    """

    def __init__(
        self, models: Sequence[Mapping[str, Tensor]], facet: Facet, recipe: Recipe, num_steps: Sequence[int]
    ) -> None:
        """
        Args:
            models: each model's trained parameters by name. facet: the architecture, with any tower: it is not run.
            num_steps: that each model takes, in falling order.
        """
        assert list(num_steps) == sorted(num_steps, reverse=True)
        self.recipe = recipe
        self.num_steps = list(num_steps)
        self.weights = {name: _stack([model[name].detach() for model in models]) for name in models[0]}
        self.ema = {name: weight.clone() for name, weight in self.weights.items()} if recipe.ema else None
        self._losses = _Losses(facet, recipe).train()
        self._buffers = {name: buffer for name, buffer in self._losses.named_buffers() if "tower." not in name}
        edges = [0, *(i for i in range(1, len(models)) if num_steps[i] != num_steps[i - 1]), len(models)]
        self._segments = list(pairwise(edges))  # models that take equally many steps have the same rate in each
        self._parts: list[dict[str, nn.Parameter]] = [
            {name: nn.Parameter(_flat(weight[a:b])) for name, weight in self.weights.items()} for a, b in self._segments
        ]
        self.optimizer = self._build_optimizer(facet)
        self._moments = {key: {name: torch.zeros_like(w) for name, w in self.weights.items()} for key in MOMENTS}
        for (a, b), part in zip(self._segments, self._parts, strict=True):
            for name, parameter in part.items():
                moments = {key: _flat(stacked[name][a:b]) for key, stacked in self._moments.items()}
                self.optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}

    def _build_optimizer(self, facet: Facet) -> torch.optim.Optimizer:
        """One model's own groups, for each segment of the stack."""
        single = build_optimizer(facet, self.recipe)
        names = {id(parameter): name for name, parameter in facet.named_parameters()}
        groups = []
        for segment, part in enumerate(self._parts):
            for group in single.param_groups:
                params = [part[names[id(parameter)]] for parameter in group["params"]]
                kept = {key: group[key] for key in ("lr", "weight_decay", "peak_lr")}
                groups.append({"params": params, "segment": segment, **kept})
        return torch.optim.AdamW(groups, **{key: single.defaults[key] for key in ("betas", "eps", "fused")})

    def num_active(self, step: int) -> int:
        """How many models, the first ones, take step 0, 1, …"""
        return sum(num > step for num in self.num_steps)

    def rate(self, model: int, step: int) -> float:
        """Part of the peak learning rate."""
        return rate_at(step, self.num_steps[model], self.recipe.warmup)

    def step(self, step: int, batch: StackedBatch, class_weight: Tensor | None) -> StackedResult:
        """Moves the weights of the models that take this step. Never waits for a GPU.

        Args:
            batch: for these models. class_weight: f32 (K, C), of all models.
        """
        num = self.num_active(step)
        leaves = {name: weight[:num].detach().requires_grad_() for name, weight in self.weights.items()}
        result = self._forward(leaves, batch, None if class_weight is None else class_weight[:num])
        result.terms["loss"].sum().backward()
        grads = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        with torch.no_grad():
            norms = torch.stack([_norm(grad) for grad in grads.values()])
            norm = torch.linalg.vector_norm(norms, dim=0)
            factor = (MAX_GRAD_NORM / (norm + 1e-6)).clamp(max=1)  # as nn.utils.clip_grad_norm_
            for grad in grads.values():
                grad *= factor.view(-1, *[1] * (grad.ndim - 1))
            for (a, b), part in zip(self._segments, self._parts, strict=True):
                for name, parameter in part.items():
                    parameter.grad = _flat(grads[name][a:b]) if b <= num and name in grads else None
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak_lr"] * self.rate(self._segments[group["segment"]][0], step)
            self.optimizer.step()
            self.weights["log_scale"].clamp_(max=MAX_LOG_SCALE)
            if self.ema is not None:
                decay = min(self.recipe.ema, (1 + step) / (10 + step))  # as `train.training.ema.Ema`
                for name, mean in self.ema.items():
                    mean[:num].lerp_(self.weights[name][:num], 1 - decay)
        terms = {name: term.detach() for name, term in result.terms.items()} | {"grad_norm": norm}
        return StackedResult(terms, result.logits.detach(), result.face.detach())

    def _forward(self, leaves: dict[str, Tensor], batch: StackedBatch, class_weight: Tensor | None) -> StackedResult:
        inputs = {name: getattr(batch, name) for name in ("features", "present", "cameras", "target", "kept")}
        if batch.has_reference is not None:
            inputs["has_reference"] = batch.has_reference
        weights = {f"facet.{name}": leaf for name, leaf in leaves.items()}

        def call(weights: dict[str, Tensor], inputs: dict[str, Tensor], class_weight: Tensor | None) -> Any:
            state = {**weights, **self._buffers}
            return functional_call(self._losses, state, (inputs, class_weight, batch.complete, batch.even))

        in_dims = (0, 0, None if class_weight is None else 0)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be mapped, and tokens are few
            return StackedResult(*vmap(call, in_dims=in_dims)(weights, inputs, class_weight))

    def trained(self, model: int) -> dict[str, Tensor]:
        """One model's weights as they are to be tested and kept: the moving average where there is one."""
        return {name: weight[model] for name, weight in (self.ema or self.weights).items()}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on but its number, for a checkpoint: name → (K, …) by what it is of."""
        return {"weights": self.weights, "ema": self.ema or {}, **self._moments}

    @torch.no_grad()
    def load(self, state: dict[str, Any], models: Sequence[int], step: int) -> None:
        """Goes on after `step` steps from what `state` gave.

        Args:
            models: which of the saved models are the K of this stack.
        Raises:
            KeyError, IndexError, RuntimeError, ValueError: it is of other models.
        """
        chosen = torch.as_tensor(list(models))
        for key, mine in self.state().items():
            for name, weight in mine.items():
                saved = state[key][name][chosen]
                if saved.shape != weight.shape:
                    raise ValueError(f"{name} has another shape")
                weight.copy_(saved)
        for (a, _), part in zip(self._segments, self._parts, strict=True):
            for parameter in part.values():
                self.optimizer.state[parameter]["step"].fill_(min(step, self.num_steps[a]))


def _stack(weights: Sequence[Tensor]) -> Tensor:
    """(K, …). Matrices lie transposed in memory, as the gradients of batched products do: copying those takes longer than
    the products."""
    stacked = torch.stack(list(weights))
    return stacked.mT.contiguous().mT if stacked.ndim == 3 else stacked


def _flat(stacked: Tensor) -> Tensor:
    """The same memory, row-major: fused optimisers copy what is not."""
    return stacked.mT if stacked.ndim == 3 else stacked


def _norm(stacked: Tensor) -> Tensor:
    """The length of each of (K, …), f32 (K,)."""
    return stacked.abs() if stacked.ndim == 1 else torch.linalg.vector_norm(stacked, dim=list(range(1, stacked.ndim)))


def stacked_model_bytes(
    num_weights: int,
    *,
    averaged: bool,
    batch_size: int,
    num_frames: int,
    has_reference: bool,
    num_views: int,
    num_classes: int,
    dim: int,
    tower_dim: int,
    num_scored: int = 1,
) -> int:
    """The most memory that each model of a `Stack` takes while it trains, f32, embeddings of images aside.

    A formula fitted to what the kernel counted (the peak of a process's resident set, less what it was before the stack was
    made) over trainings of the whole model on a CPU: 1 to 16 models of 0.2 to 7.9 million weights, batches of 16 to 128, 1 to
    12 frames, 1 to 18 images a frame, 6 to 30 classes. Each took 0.7 to 1.0 of it. Models without attention between views and
    towards text take less, down to a fifth. `tests/benchmarks/at_once_memory.py` measures again.

    Args:
        averaged: a moving average of the weights is kept. num_frames: of a sample, its reference aside.
        num_views: images of a frame, all modalities together. dim: of the prompts' embeddings. tower_dim: of the tower's.
        num_scored: images of a frame that are scored one by one, 1 where they are scored together; not part of the fit.
    """
    num_tokens = batch_size * (num_frames + has_reference) * num_views
    # weights, gradients, AdamW's two moments, and what the step lays beside them
    floats = (5.5 + averaged) * num_weights
    floats += num_tokens * (48 * dim + 2 * tower_dim)
    floats += num_scored * batch_size * dim * (18 * num_classes + 90 * (num_frames + has_reference))
    num_heads = max(dim // HEAD_DIM, 1)
    floats += 8 * batch_size * num_heads * num_classes * num_frames * num_views  # weights of attention towards text
    return int(4 * floats)
