"""Choose which weights of the image tower are trained: all, none, its last blocks, or low-rank updates (LoRA)."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from shared.errors import FacetError
from train.model.facet import Facet

LORA_RANK = 8
_NUMBERED = re.compile(r"\.\d+\.")  # a parameter of one of several blocks or stages


class LowRank(nn.Module):
    """W → W + B A, with W frozen: LoRA (Hu et al. 2022), α = r. B starts at zero.

    A parametrisation of the weight instead of a wrapped layer: in the attention of open_clip's towers, queries, keys and
    values share one matrix, which is not a layer.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        num_out, num_in = weight.shape
        rank = min(rank, num_out, num_in)
        self.a = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(rank, num_in), a=5**0.5))
        self.b = nn.Parameter(weight.new_zeros(num_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # bf16 would lose small updates of f32 weights
            return torch.addmm(weight, self.b, self.a)


def tune_tower(model: Facet, tune: str) -> None:
    """Mark the trained weights of the tower before training: `full`, `frozen`, `last-K` or `lora[-R]`.

    Raises:
        FacetError: the order of the tower's layers is not known, or it has no layers for LoRA.
    """
    if tune == "frozen":
        model.tower.requires_grad_(False)
    elif tune.startswith("last-"):
        depths = layer_depths(model.tower)
        first = max(depths.values()) - int(tune.removeprefix("last-"))
        for name, parameter in model.tower.named_parameters():
            parameter.requires_grad_(depths[name] >= first)
    elif tune.startswith("lora"):
        _add_low_rank(model.tower, int(tune.removeprefix("lora").removeprefix("-") or LORA_RANK))
    model.train(model.training)


def merge_low_rank(model: Facet) -> None:
    """Replace W by W + B A: the tower has its plain architecture again."""
    for module in list(model.tower.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _add_low_rank(tower: nn.Module, rank: int) -> None:
    depths = layer_depths(tower)
    last = max(depths.values())
    chosen = [
        (module, name)
        for prefix, module in tower.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if (name == "in_proj_weight" or (name == "weight" and isinstance(module, nn.Linear)))
        and parameter.ndim == 2
        and 0 < depths[f"{prefix}.{name}"] < last
    ]
    if not chosen:
        raise FacetError("--tune lora: this image tower is not a transformer; use --tune last-K")
    tower.requires_grad_(False)
    for module, name in chosen:
        parametrize.register_parametrization(module, name, LowRank(getattr(module, name), rank))


def layer_depths(tower: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter: 0 = patch embedding, 1, 2, … = blocks, the largest = norm and projection.

    Raises:
        FacetError: a tower that is neither open_clip's nor timm's.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    names = [name for name, _ in tower.named_parameters()]
    if isinstance(tower, VisionTransformer):
        return _depths_by_prefix(names, "transformer.resblocks.", ("ln_post.", "proj", "attn_pool."))
    if isinstance(tower, ModifiedResNet):
        return _depths_by_prefix(names, "layer", ("attnpool.",), first=1)
    if isinstance(tower, TimmModel) and hasattr(tower.trunk, "group_matcher"):
        from timm.models import group_parameters

        groups = group_parameters(tower.trunk, tower.trunk.group_matcher(coarse=False))
        depths = {f"trunk.{name}": int(depth) for depth, group in groups.items() for name in group}
        blocks = {name: depth for name, depth in depths.items() if depth == 0 or _NUMBERED.search(name)}
        after = max(blocks.values()) + 1  # timm counts a norm after the last block to that block
        return {name: blocks.get(name, after) for name in names}
    raise FacetError("--tune and --layer-decay: the order of this image tower's layers is not known; use --tune full")


def _depths_by_prefix(names: list[str], prefix: str, after: tuple[str, ...], first: int = 0) -> dict[str, int]:
    depths = {
        name: int(name.removeprefix(prefix).split(".")[0]) - first + 1 for name in names if name.startswith(prefix)
    }
    last = max(depths.values()) + 1
    return {name: depths.get(name, last if name.startswith(after) else 0) for name in names}


def checkpoint_activations(tower: nn.Module) -> None:
    """Recompute each block's activations in the backward pass instead of storing them (Chen et al. 2016).

    Raises:
        FacetError: the tower does not support it.
    """
    from open_clip.transformer import VisionTransformer

    trunk = getattr(tower, "trunk", tower)
    try:
        if not isinstance(tower, VisionTransformer) and trunk is tower:
            raise AttributeError  # open_clip's other towers accept the call without effect
        trunk.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise FacetError(
            "--gradient-checkpointing: this image tower does not support it; leave it out, or use --gradient-accumulation"
        ) from error
