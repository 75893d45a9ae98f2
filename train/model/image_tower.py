"""The image tower: open_clip's own architecture and weights, without ever building the text tower."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import FacetError, first_line
from shared.weights.files import Weights, read_weights
from shared.weights.identity import TOWERS, check_file_exists, hash_arrays, skip_unreachable_hub
from shared.weights.layout import describe_misfit
from shared.weights.model_config import check_model_config, read_model_folder
from train.config import RANDOM, TowerConfig

LOCAL_DIR = "local-dir:"
HUB = "hf-hub:"


def hash_state(tensors: Mapping[str, Tensor]) -> str:
    """`shared.weights.identity.hash_arrays` of an image tower's state_dict (names without `visual.`)."""
    return hash_arrays({key: tensor.detach().cpu().float().numpy() for key, tensor in tensors.items()})


def load_tower(model: str, pretrained: str, *, seed: int) -> tuple[nn.Module, TowerConfig]:
    """Builds an image tower and loads its weights.

    Args:
        model: an open_clip model name, a config in shared/towers, `local-dir:DIR` or `hf-hub:ORG/NAME`.
        pretrained: an open_clip tag or a checkpoint file of the whole model; `none` = random weights drawn from `seed`.
            For local-dir: and hf-hub: the weights stand beside the config, and anything but `none` means those.
    Returns:
        The tower: images f32 (B, 3, S, S), normalised → features (B, d); and its description.
    Raises:
        FacetError: no such model, tag or file, no network, or weights that do not fit the model.
    """
    skip_unreachable_hub()
    config, preprocess = read_model_config(model)
    path, weights = Path(), None
    if pretrained != RANDOM:
        path, tag_preprocess = find_weights(model, pretrained)
        preprocess = {**preprocess, **tag_preprocess}
        weights = read_weights(path, partial(torch.load, map_location="cpu", weights_only=True))
        # ViT-B-16 is one model to open_clip, whichever activation its weights were trained with
        quick_gelu = _find_tag(model, pretrained).get("quick_gelu") or weights.quick_gelu
        config["quick_gelu"] = config["quick_gelu"] if quick_gelu is None else quick_gelu
    torch.manual_seed(seed)
    tower = build_tower(config)
    if weights is not None:
        _load_visual_weights(tower, weights, path, model)
    size = getattr(tower, "image_size", None) or config["vision_cfg"].get("image_size", 224)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise FacetError(f"--model {model}: takes {height} x {width} images; a tower for square images is needed")
    import open_clip

    return tower, TowerConfig(
        name=model,
        pretrained=pretrained,
        config=config,
        image_size=int(height),
        mean=tuple(preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(preprocess.get("std") or open_clip.OPENAI_DATASET_STD),
        weights_hash=hash_state(tower.state_dict()),
        random_weights=pretrained == RANDOM,
    )


def _count_bytes(config: Mapping[str, Any], vision: dict[str, Any]) -> int:
    """What a tower's weights take, found without taking it; a bound from its sizes where torch cannot tell."""
    from open_clip.model import _build_vision_tower

    try:
        with torch.device("meta"):
            tower = _build_vision_tower(config["embed_dim"], dict(vision), config.get("quick_gelu", False))
        return sum(value.numel() * value.element_size() for value in tower.state_dict().values())
    except Exception:  # some towers compute with their first values, which are nowhere then
        numbers = [value for value in vision.values() if isinstance(value, int)]
        return 4 * 12 * max(numbers, default=0) ** 2


def build_tower(config: Mapping[str, Any], *, most_bytes: int | None = None) -> nn.Module:
    """The image tower of an open_clip model config, with fresh random weights.

    Args:
        most_bytes: what its weights may take, where the config comes with a file of them.
    Raises:
        FacetError: open_clip cannot build it, it asks for more than that, or `check_model_config` refuses it.
    """
    from open_clip.model import _build_vision_tower  # what CLIP's own constructor calls; there is no public name

    check_model_config(config, "the image tower's config", from_hub=True)
    if not isinstance(config.get("vision_cfg"), dict) or not isinstance(config.get("embed_dim"), int):
        raise FacetError("the image tower's config lacks vision_cfg or embed_dim; is it an open_clip model?")
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    if most_bytes is not None and (num_bytes := _count_bytes(config, vision)) > most_bytes:
        raise FacetError(
            f"its image tower would take {num_bytes / 1e6:,.0f} MB, and the weights have {most_bytes / 1e6:,.0f}"
        )
    try:
        tower: nn.Module = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    except Exception as error:  # open_clip and timm raise many kinds on a config that is not one of theirs
        raise FacetError(f"the image tower cannot be built from its config ({first_line(error)})") from error
    return tower


def read_model_config(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What open_clip knows of a model: (embed_dim, vision_cfg and quick_gelu; preprocess_cfg, empty for named models).

    Raises:
        FacetError: no such model; the config cannot be read or downloaded.
    """
    import open_clip
    from open_clip.factory import _get_hf_config

    if model.startswith(LOCAL_DIR):
        whole = read_model_folder(Path(model.removeprefix(LOCAL_DIR)))
    elif model.startswith(HUB):
        try:
            whole = _get_hf_config(model.removeprefix(HUB))
        except Exception as error:  # the hub raises many kinds
            raise FacetError(f"--model {model}: cannot be downloaded ({first_line(error)}); {_ADVICE}") from error
        check_model_config(whole.get("model_cfg") or {}, model, from_hub=True)
    else:
        open_clip.add_model_config(TOWERS)
        found = open_clip.get_model_config(model.replace("/", "-"))
        if found is None:
            raise FacetError(
                f"--model {model}: open_clip knows no such model; "
                "python -c 'import open_clip; print(*open_clip.list_models())' lists them"
            )
        whole = {"model_cfg": found}
    try:
        config = whole["model_cfg"]
        wanted = {"embed_dim": int(config["embed_dim"]), "vision_cfg": dict(config["vision_cfg"])}
        return wanted | {"quick_gelu": bool(config.get("quick_gelu", False))}, dict(whole.get("preprocess_cfg") or {})
    except (KeyError, TypeError, ValueError) as error:
        raise FacetError(f"--model {model}: its config lacks {error}; is it an open_clip model?") from error


_ADVICE = (
    "without a network give --pretrained FILE (downloaded weights of open_clip, transformers or OpenAI), "
    "--model local-dir:DIR (a folder with open_clip_config.json and weights) or, for a first try, --model facet-tiny "
    "--pretrained none (random weights)"
)


def find_weights(model: str, pretrained: str) -> tuple[Path, dict[str, Any]]:
    """Where a model's weights are, downloading them where open_clip does; and what their tag says of the images.

    Raises:
        FacetError: no such tag or file, or it cannot be downloaded.
    """
    from open_clip.factory import _find_checkpoint_in_dir
    from open_clip.pretrained import (
        download_pretrained,
        download_pretrained_from_hf,
        list_pretrained_tags_by_model,
    )

    if model.startswith(LOCAL_DIR):
        directory = Path(model.removeprefix(LOCAL_DIR))
        found = _find_checkpoint_in_dir(directory)
        if found is None:
            raise FacetError(
                f"--model {model}: no weights (.safetensors, .bin, .pth) in {directory}; put them there, or give "
                "--pretrained none (random weights)"
            )
        return Path(found), {}
    tag = _find_tag(model, pretrained)
    if not tag and not model.startswith(HUB):
        if Path(pretrained).exists():
            return Path(pretrained), {}
        check_file_exists(pretrained)
        tags = ", ".join(list_pretrained_tags_by_model(model.replace("/", "-"))) or "none"
        raise FacetError(
            f"--pretrained {pretrained}: neither a file nor a tag of {model} (its tags: {tags}); {_ADVICE}"
        )
    try:
        path = (
            download_pretrained_from_hf(model.removeprefix(HUB)) if model.startswith(HUB) else download_pretrained(tag)
        )
    except Exception as error:  # the hub and urllib raise many kinds
        raise FacetError(
            f"the weights {pretrained} of {model} cannot be downloaded ({first_line(error)}); {_ADVICE}"
        ) from error
    return Path(path), {key: tag[key] for key in ("mean", "std") if tag.get(key)}


def _find_tag(model: str, pretrained: str) -> dict[str, Any]:
    """What open_clip knows of a weights tag: where it lies, its images' mean and std, its activation; {}: no such tag."""
    from open_clip.pretrained import get_pretrained_cfg

    return dict(get_pretrained_cfg(model.replace("/", "-"), pretrained))


def _load_visual_weights(tower: nn.Module, weights: Weights, path: Path, model: str) -> None:
    """Loads the `visual.*` tensors of a whole model."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import resize_pos_embed

    holder = nn.Module()  # open_clip's conversions look for `.visual`
    holder.visual = tower
    wanted = _shapes(holder.state_dict())
    try:
        state = {name: torch.from_numpy(np.array(array)) for name, array in weights.arrays.items()}
        state = convert_state_dict(holder, state)  # type: ignore[arg-type]
        state = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
        before = describe_misfit(_shapes(state), wanted, model)
        if before:
            resize_pos_embed(state, holder)
    except Exception as error:  # what open_clip expects of a state is not checked before it converts it
        raise FacetError(
            f"{path}: weights of another model than {model} ({first_line(error)}); check --model"
        ) from error
    if misfit := describe_misfit(_shapes(state), wanted, model):
        raise FacetError(f"{path}: weights of another model: {misfit}; give the --model that they are of")
    for note in (*weights.notes, *([f"{path}: its position embeddings are resized ({before})"] if before else ())):
        print(f"note: {note}")
    holder.load_state_dict(state)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
