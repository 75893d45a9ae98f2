"""Find and rename the weights of CLIP models from several libraries to open_clip's names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from shared.errors import FacetError, name_some

_MAX_DEPTH = 4
# First ones first.
_STATES = ("state_dict", "model_state_dict", "model", "module", "ema", "model_ema", "ema_state_dict")
_TOWER = re.compile(r"^((?:.*?\.)?)(?:visual|vision_model|image_encoder)\.")
# OpenAI's archive keeps these numbers beside its tensors; position_ids are 0, 1, 2, …
_NO_WEIGHTS = re.compile(r"^(input_resolution|context_length|vocab_size)$|(^|\.)position_ids$")

# transformers' CLIPModel → open_clip's CLIP: what a name begins with, what stands in each block, what is transposed
_TOWERS = (("vision_model.", "visual."), ("text_model.", ""))
_PARTS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    **{f"pre_layrnorm.{kind}": f"ln_pre.{kind}" for kind in ("weight", "bias")},
    **{f"post_layernorm.{kind}": f"ln_post.{kind}" for kind in ("weight", "bias")},
    **{f"final_layer_norm.{kind}": f"ln_final.{kind}" for kind in ("weight", "bias")},
}
_BLOCK = re.compile(r"^encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")
_BLOCK_PARTS = {
    "layer_norm1": "ln_1.",
    "layer_norm2": "ln_2.",
    "mlp.fc1": "mlp.c_fc.",
    "mlp.fc2": "mlp.c_proj.",
    "self_attn.out_proj": "attn.out_proj.",
    "self_attn.q_proj": "attn.in_proj_",
    "self_attn.k_proj": "attn.in_proj_",
    "self_attn.v_proj": "attn.in_proj_",
}
_PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}

# What a file of these names is, where it is no CLIP model; the first that fits.
_OTHERS = (
    (r"(^|\.)lora_|(^|\.)base_layer\.", "LoRA adapters; merge them into their model (merge_and_unload) and save that"),
    (r"^model\.diffusion_model\.|^down_blocks\.", "a diffusion model"),
    (
        r"(^|\.)vision_model\.head\.(probe|attention)",
        "transformers' SigLIP; take open_clip's own, --model ViT-B-16-SigLIP and its tag webli",
    ),
    (r"^(tower|facet)\.", "a FACET run of `python -m train`; give the weights that its tower began with"),
    (
        r"^(conv1\.weight|class_embedding|patch_embed\.|trunk\.|stem\.)",
        "an image tower alone; give the whole CLIP model's",
    ),
)


def find_state(value: object) -> tuple[dict[str, Any], str]:
    """Find the tensors of a model in the nested dictionaries of a loaded checkpoint.

    Returns:
        Tensors by name, {} if there are none; a note if several models are nested, else "". A model with an image tower goes
        first, then the one with the most tensors, then the one whose name comes first in `_STATES`.
    """
    found = [(path, tensors) for path, tensors in _walk(value, ()) if tensors]
    if not found:
        return {}, ""
    models = [one for one in found if any(_TOWER.match(name) for name in one[1])]
    path, tensors = min(models or found, key=lambda one: (-len(one[1]), *map(_rank, one[0])))
    others = [".".join(other) for other, _ in models if other != path]
    note = f"holds {len(models)} models; {'.'.join(path)} is read, not {', '.join(others[:3])}" if others else ""
    return tensors, note


def _rank(name: str) -> int:
    return _STATES.index(name) if name in _STATES else len(_STATES)


def _walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(value, Mapping) or len(path) > _MAX_DEPTH:
        return
    yield path, {name: one for name, one in value.items() if isinstance(name, str) and is_tensor(one)}
    for name, inner in value.items():
        yield from _walk(inner, (*path, str(name)[:40]))


def is_tensor(value: object) -> bool:
    """Return whether a value is a torch tensor, without importing torch."""
    return hasattr(value, "detach") and hasattr(value, "dtype")


def name_weights(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], bool]:
    """Rename weights of open_clip or transformers' CLIPModel to open_clip's names.

    What wraps a model in training (`module.`, `_orig_mod.`, `model.`) is taken off the names.

    Raises:
        FacetError: they are of another kind of model, which the message names.
    """
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for name in arrays):
            raise FacetError(f"holds {what}")
    wrapped = next((match[1] for name in arrays if (match := _TOWER.match(name))), None)
    if wrapped is None:
        raise FacetError(f"holds no image tower (no visual.* tensors): {_list_names(arrays)}")
    plain = {name.removeprefix(wrapped): array for name, array in arrays.items() if not _NO_WEIGHTS.search(name)}
    if "vision_model.embeddings.patch_embedding.weight" in plain:
        return _from_transformers(plain), True
    if not any(name.startswith(("visual.", "image_encoder.")) for name in plain):  # the latter: MobileCLIP's
        raise FacetError(
            f"is neither open_clip's layout (visual.*) nor transformers' CLIPModel (vision_model.embeddings.*): "
            f"{_list_names(plain)}"
        )
    return plain, False


def _from_transformers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    joined: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        if name in _PROJECTIONS:
            found[_PROJECTIONS[name]] = array.T
            continue
        prefix, ours = next(((theirs, ours) for theirs, ours in _TOWERS if name.startswith(theirs)), ("", ""))
        part = name.removeprefix(prefix)
        block = _BLOCK.match(part)
        if block and block[2] in _BLOCK_PARTS:
            target = f"{ours}transformer.resblocks.{block[1]}.{_BLOCK_PARTS[block[2]]}{block[3]}"
            if target.rpartition("_")[0].endswith("in_proj"):
                joined.setdefault(target, {})[block[2]] = array
            else:
                found[target] = array
        else:  # logit_scale has one name in both; `describe_misfit` reports unknown names
            found[ours + _PARTS.get(part, part)] = array
    for target, parts in joined.items():
        found[target] = np.concatenate([parts[f"self_attn.{which}_proj"] for which in "qkv"])
    return found


def describe_misfit(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], model: str) -> str:
    """Describe how weights of these shapes differ from a model's, with the first example; "" where they fit."""
    differ = [name for name in wanted if name in found and tuple(found[name]) != tuple(wanted[name])]
    if differ:
        name = differ[0]
        return f"{name} is {_size(found[name])}, in {model} {_size(wanted[name])}" + (
            f"; so are {len(differ) - 1} more" if len(differ) > 1 else ""
        )
    missing = [name for name in wanted if name not in found]
    more = [name for name in found if name not in wanted]
    parts = [f"lacks {_list_names(missing)}"] if missing else []
    return ", ".join([*parts, f"has {_list_names(more)}, which {model} has not"] if more else parts)


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _list_names(names: Iterable[str]) -> str:
    return name_some([name[:60] for name in names], 2)
