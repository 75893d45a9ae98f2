"""Join a run's image tower with the text tower that its prompts come from, as a model of open_clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import FacetError
from shared.weights.models import ModelLoader, skip_unreachable_hub
from train.config import RunConfig, TowerConfig
from train.model.facet import Facet
from train.model.image_tower import describe_tower, hash_state

_ATOL = 1e-4  # between a folded projection and the product, relative to the largest feature


@dataclass(frozen=True)
class OpenClipModel:
    """clip: both towers. description: with open_clip's whole model_cfg.

    projects: its image features are the run's view tokens; else they lack the run's projection.
    num_known: tokens that the table of the text tower holds; None: all.
    """

    clip: nn.Module
    description: TowerConfig
    projects: bool
    num_known: int | None = None


def join_text_tower(config: RunConfig, model: Facet) -> OpenClipModel:
    """Load the model that a run started from, and put the trained image tower in.

    Weights are found as in training, so a tag of open_clip may be downloaded. The trained projection behind the tower is
    folded into the tower's last layer, where that is linear.

    Raises:
        FacetError: why no text tower belongs to the run, or why it is not at hand.
    """
    tower = config.tower
    if config.recipe.towers == "view":
        raise FacetError("each view has an image tower of its own, and open_clip's models have one")
    if config.is_random:
        raise FacetError("the image tower, or the prompts, had random weights at first, so no text tower belongs to it")
    skip_unreachable_hub()
    import open_clip

    loader = ModelLoader(open_clip, torch)
    source = loader.find(tower.name, tower.pretrained)
    if (source.config.get("text_cfg") or {}).get("hf_model_name"):
        raise FacetError(f"the text tower of {tower.name} is another repository's, which a folder may not ask for")
    clip: Any = loader.build(source)
    if hash_state(clip.visual.state_dict()) != tower.weights_hash:
        raise FacetError(f"the weights {tower.pretrained} of {tower.name} are not those that the run started from")
    clip.visual.load_state_dict(model.tower.state_dict())
    projects = fold_projection(clip.visual, model.projection.weight.detach(), tower.image_size)
    with torch.no_grad():
        clip.logit_scale.fill_(model.log_scale.item())
    description = describe_tower(source, tower.pretrained, clip, tower.image_size, source.config)
    num_known = None if source.kept_tokens is None else len(source.kept_tokens)
    return OpenClipModel(clip.eval(), description, projects, num_known)


@torch.no_grad()
def fold_projection(visual: Any, projection: Tensor, size_px: int) -> bool:
    """Multiply a tower's last layer by a matrix (d, d), so that its features are the product; False: left as it was."""
    visual.eval()
    images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    wanted = visual(images) @ projection.T
    last = _find_last(visual)
    if last is None:
        return False
    before = [parameter.clone() for parameter in last]
    weight, *bias = last
    if isinstance(getattr(visual, "proj", None), nn.Parameter):  # (width, d): multiplied from the left
        weight.copy_(weight @ projection.T)
    else:
        weight.copy_(projection @ weight)
        for parameter in bias:
            parameter.copy_(projection @ parameter)
    if torch.allclose(visual(images), wanted, rtol=0, atol=_ATOL * float(wanted.abs().max())):
        return True
    for parameter, value in zip(last, before, strict=True):
        parameter.copy_(value)
    return False


def _find_last(visual: Any) -> list[nn.Parameter] | None:
    """Return weight and bias of the layer that makes the features: of open_clip's transformers, ResNets, and timm's towers."""
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return [visual.proj]
    for module in reversed(list(visual.modules())):
        if isinstance(module, nn.Linear):
            return list(module.parameters(recurse=False))  # weight and, if it has one, bias
    return None
