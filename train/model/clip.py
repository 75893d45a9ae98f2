"""A whole open_clip model: built for pretraining, and written as a model folder or as weights that ship."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from shared.errors import FacetError
from shared.schema import canonical_json
from shared.store.storage import write_file
from shared.weights.model_config import MODEL_CONFIG
from shared.weights.models import TOKEN_ROWS, TOKEN_ROWS_WEIGHT, ModelLoader, skip_unreachable_hub
from train.config import TowerConfig
from train.model.image_tower import describe_tower
from train.model.weights import replace_file

MODEL_WEIGHTS = "open_clip_model.safetensors"
_TABLE = "token_embedding.weight"


def open_clip_model(model: str, pretrained: str, *, seed: int) -> tuple[nn.Module, TowerConfig]:
    """Build an open_clip model with both towers.

    Args:
        model, pretrained: as `ModelLoader.find`; random weights are drawn from `seed`.
    Returns:
        The model; its description, with the whole model_cfg, and the hash of all its weights.
    Raises:
        FacetError: no such model or weights, or its images are not square.
    """
    skip_unreachable_hub()
    import open_clip

    loader = ModelLoader(open_clip, torch)
    source = loader.find(model, pretrained)
    clip: Any = loader.build(source, seed=seed)
    size = getattr(clip.visual, "image_size", 224)
    return clip, describe_tower(source, pretrained, clip, size, source.config)


def tokenize(model: str, texts: Sequence[str]) -> Tensor:
    """Return the tokens of texts by the model's own tokenizer, i64 (n, L)."""
    skip_unreachable_hub()
    import open_clip

    ModelLoader(open_clip, torch)  # registers the configurations that ship
    tokens: Tensor = open_clip.get_tokenizer(model)(list(texts))
    return tokens


def encode_text(clip: Any, tokens: Tensor) -> Tensor:
    """Return unit-length embeddings f32 (n, d) of tokens (n, L).

    open_clip's CLIP computes all L = 77 positions. With its causal attention, those after the last text's end change
    nothing, so they are left out here, which takes a third of the time for captions.
    """
    if not isinstance(getattr(clip, "attn_mask", None), Tensor) or clip.text_pool_type != "argmax":
        found: Tensor = clip.encode_text(tokens, normalize=True)
        return found
    length = int(tokens.argmax(1).max()) + 1  # the end of a text has the highest token
    fewer = {"positional_embedding": clip.positional_embedding[:length], "attn_mask": clip.attn_mask[:length, :length]}
    encoded = functional_call(clip, fewer, kwargs={"text": tokens[:, :length]})
    found = encoded["text_features"] if isinstance(encoded, dict) else encoded[1]
    return found


def write_model_folder(run: Path, clip: nn.Module, tower: TowerConfig) -> None:
    """Write a folder that open_clip loads as `local-dir:RUN`: configuration, and weights of both towers."""
    config = {"model_cfg": tower.config, "preprocess_cfg": {"mean": list(tower.mean), "std": list(tower.std)}}
    write_file(run / MODEL_CONFIG, canonical_json(config).encode())
    tensors = {key: value.detach().cpu().contiguous() for key, value in clip.state_dict().items()}
    replace_file(run / MODEL_WEIGHTS, lambda path: save_file(tensors, path))


def ship_weights(run: Path, file: Path, tokens: Tensor) -> int:
    """Write the weights of a model folder in half precision, with the rows of the token table that some texts need.

    Args:
        tokens: i64, of the texts.
    Returns:
        The number of rows kept.
    Raises:
        FacetError: the text tower has no token table of open_clip's CLIP.
    """
    state = load_file(run / MODEL_WEIGHTS)
    if _TABLE not in state:
        raise FacetError(
            f"--ship: {run / MODEL_WEIGHTS} has no {_TABLE}; only models of open_clip's class CLIP are shipped"
        )
    rows = tokens.unique()
    state = {**state, TOKEN_ROWS_WEIGHT: state[_TABLE][rows]}
    del state[_TABLE]
    # running variances may lie outside the range of half precision
    small = {k: v.half() if v.is_floating_point() and "running_" not in k else v for k, v in state.items()}
    tensors = {key: value.contiguous() for key, value in (small | {TOKEN_ROWS: rows.int()}).items()}
    replace_file(file, lambda path: save_file(tensors, path))
    return len(rows)
