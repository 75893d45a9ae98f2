"""The image tower: architecture and weights of open_clip, without the text tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import FacetError, first_line
from shared.weights.identity import hash_arrays
from shared.weights.model_config import check_model_config
from shared.weights.models import RANDOM, ModelLoader, ModelSource, skip_unreachable_hub
from train.config import TowerConfig


def hash_state(tensors: Mapping[str, Tensor]) -> str:
    """Return `hash_arrays` of an image tower's state_dict (names without `visual.`)."""
    return hash_arrays({key: tensor.detach().cpu().float().numpy() for key, tensor in tensors.items()})


def load_tower(model: str, pretrained: str, *, seed: int) -> tuple[nn.Module, TowerConfig]:
    """Build an image tower and load its weights.

    Args:
        model, pretrained: as `ModelLoader.find`; random weights are drawn from `seed`.
    Returns:
        The tower: normalised images f32 (B, 3, S, S) → features (B, d); and its description.
    Raises:
        FacetError: no such model, tag or file, no network, or weights that do not fit the model.
    """
    loader = _open_loader()
    source = loader.find(model, pretrained)
    config = _select_vision(model, source.config)
    torch.manual_seed(seed)
    tower = build_tower(config)
    if source.weights is not None:
        holder = nn.Module()  # open_clip's conversions look for `.visual`
        holder.visual = tower
        loader.load(holder, source)
    size = getattr(tower, "image_size", None) or config["vision_cfg"].get("image_size", 224)
    return tower, describe_tower(source, pretrained, tower, size, config)


def describe_tower(
    source: ModelSource, pretrained: str, built: nn.Module, size_px: int | Sequence[int], config: dict[str, Any]
) -> TowerConfig:
    """Return the description of a model as it was built: an image tower, or both towers.

    Args:
        source: where it was found. size_px: of its images, one number or height and width.
        config: open_clip's, of what was built.
    Raises:
        FacetError: its images are not square.
    """
    import open_clip

    height, width = size_px if isinstance(size_px, Sequence) else (size_px, size_px)
    if height != width:
        raise FacetError(f"--model {source.name}: needs {height} x {width} images; choose a model for square images")
    return TowerConfig(
        name=source.name,
        pretrained=pretrained,
        config=config,
        image_size=int(height),
        mean=tuple(source.preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(source.preprocess.get("std") or open_clip.OPENAI_DATASET_STD),
        weights_hash=hash_state(built.state_dict()),
        random_weights=pretrained == RANDOM,
    )


def _count_bytes(config: Mapping[str, Any], vision: dict[str, Any]) -> int:
    """Return the bytes of a tower's weights without allocating them, or a bound if it cannot be built without."""
    from open_clip.model import _build_vision_tower

    try:
        with torch.device("meta"):
            tower = _build_vision_tower(config["embed_dim"], dict(vision), config.get("quick_gelu", False))
        return sum(value.numel() * value.element_size() for value in tower.state_dict().values())
    except Exception:  # some towers compute with their initial values
        numbers = [value for value in vision.values() if isinstance(value, int)]
        return 4 * 12 * max(numbers, default=0) ** 2


def build_tower(config: Mapping[str, Any], *, most_bytes: int | None = None) -> nn.Module:
    """Build the image tower of an open_clip model config, with random weights.

    Args:
        most_bytes: limit of its weights, for a config that comes with a file of weights.
    Raises:
        FacetError: open_clip cannot build it, it is larger than that, or `check_model_config` refuses it.
    """
    from open_clip.model import _build_vision_tower  # called by CLIP's constructor; there is no public name

    check_model_config(config, "the image tower's config", from_hub=True)
    if not isinstance(config.get("vision_cfg"), dict) or not isinstance(config.get("embed_dim"), int):
        raise FacetError("the image tower's config lacks vision_cfg or embed_dim; is it an open_clip model?")
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    if most_bytes is not None and (num_bytes := _count_bytes(config, vision)) > most_bytes:
        raise FacetError(
            f"its image tower needs {num_bytes / 1e6:,.0f} MB, but the file of weights has {most_bytes / 1e6:,.0f} MB"
        )
    try:
        tower: nn.Module = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    except Exception as error:  # open_clip and timm raise many kinds
        raise FacetError(f"the image tower cannot be built from its config ({first_line(error)})") from error
    return tower


def read_model_config(model: str) -> dict[str, Any]:
    """Return embed_dim, vision_cfg and quick_gelu of a model that open_clip knows.

    Raises:
        FacetError: no such model; the config cannot be read or downloaded.
    """
    return _select_vision(model, _open_loader().find_config(model)[0])


def find_hub_name(tower: TowerConfig) -> str | None:
    """Return the repository of a tower's initial weights on the Hugging Face Hub; None if they are from elsewhere."""
    import open_clip

    name = str(open_clip.get_pretrained_cfg(tower.name.replace("/", "-"), tower.pretrained).get("hf_hub") or "")
    return name.strip("/") or None


def _open_loader() -> ModelLoader:
    skip_unreachable_hub()
    import open_clip

    return ModelLoader(open_clip, torch)


def _select_vision(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model_cfg that describe the image tower."""
    try:
        chosen = {"embed_dim": int(config["embed_dim"]), "vision_cfg": dict(config["vision_cfg"])}
        return chosen | {"quick_gelu": bool(config.get("quick_gelu", False))}
    except (KeyError, TypeError, ValueError) as error:
        raise FacetError(f"--model {model}: its config lacks {error}; is it an open_clip model?") from error
