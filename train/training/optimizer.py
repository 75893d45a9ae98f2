"""AdamW: weight decay, learning rates per layer, and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from shared.pairs import group_pairs
from shared.weights.models import RANDOM
from train.model.facet import Facet
from train.model.tuning import LowRank, layer_depths
from train.options import Recipe
from train.resolve import default_tower_rate, is_small_tower

ADAM_BETAS = (0.9, 0.98)  # as CLIP's own training (Radford et al. 2021, table 19)


def describe_rates(recipe: Recipe) -> str:
    """Describe the trained weights and their peak learning rates, with the reason, in one line."""
    if recipe.tune == "frozen":
        return f"image tower frozen (--tune), all else trained at {recipe.lr:g} (--lr)"
    if recipe.tune.startswith("lora"):
        return f"low-rank changes of the image tower (--tune) and all else trained at {recipe.lr:g} (--lr)"
    what = (
        "image tower"
        if recipe.tune == "full"
        else f"{recipe.tune.removeprefix('last-')} last blocks of the image tower"
    )
    if recipe.tower_lr != default_tower_rate(recipe.lr, recipe.model, recipe.pretrained):
        why = "--tower-lr"
    elif recipe.init_from:
        why = (
            "--lr"
            + f" / {recipe.lr / recipe.tower_lr:g}" * (recipe.tower_lr != recipe.lr)
            + ", as for RUN of --init-from"
        )
    elif recipe.pretrained == RANDOM:
        why = "as --lr: its weights are random"
    elif is_small_tower(recipe.model):
        why = "as --lr: it is small"
    else:
        why = (
            f"--lr / {recipe.lr / recipe.tower_lr:g} for pretrained weights, {recipe.pretrained}; if these are not pretrained, "
            f"use --tower-lr {recipe.lr:g}"
        )
    return f"{what} trained at {recipe.tower_lr:g} ({why}), all else at {recipe.lr:g} (--lr)"


def build_optimizer(model: Facet, recipe: Recipe) -> torch.optim.Optimizer:
    """Build AdamW with parameter groups. Biases, norms, scales and embeddings have no weight decay.

    A layer of the tower that is k blocks before its end has the rate --tower-lr · --layer-decay^k (Clark et al. 2020,
    "ELECTRA"; Bao et al. 2022, "BEiT"). LoRA weights have the rate of new layers.

    Raises:
        FacetError: --layer-decay is used with a tower whose order of layers is unknown.
    """
    depths = layer_depths(model.tower) if recipe.layer_decay < 1 else {}
    last = max(depths.values(), default=0)
    new = {id(p) for module in model.modules() if isinstance(module, LowRank) for p in module.parameters()}
    chosen = []
    for name, parameter in model.named_parameters():
        rate = recipe.lr
        if name.startswith("tower.") and id(parameter) not in new:
            depth = depths.get(name.removeprefix("tower."), last)
            rate = recipe.tower_lr * recipe.layer_decay ** (last - depth)
        decays = parameter.ndim >= 2 and not name.endswith(("embedding", "modality", "query"))
        chosen.append((parameter, rate, recipe.weight_decay if decays else 0.0))
    return build_adamw(chosen)


def build_adamw(chosen: Iterable[tuple[nn.Parameter, float, float]]) -> torch.optim.Optimizer:
    """Build AdamW of (parameter, peak learning rate, weight decay); parameters without a gradient are left out."""
    groups = group_pairs(((rate, decay), parameter) for parameter, rate, decay in chosen if parameter.requires_grad)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay, "peak_lr": rate} for (rate, decay), p in groups.items()],
        betas=ADAM_BETAS,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to this fraction of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * rate


def rate_at(step: int, num_steps: int, warmup: float) -> float:
    """Return the fraction of the peak learning rate in step 0, 1, …: linear warm-up, then a cosine (SGDR, Loshchilov 2017)."""
    num_warmup = warmup * num_steps
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(num_steps - num_warmup, 1)))
