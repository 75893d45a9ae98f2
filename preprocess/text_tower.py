"""An open_clip model with its text tower and tokenizer, on the CPU."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError, first_line
from shared.weights.files import Weights, read_weights
from shared.weights.identity import TOWERS, check_file_exists, skip_unreachable_hub
from shared.weights.layout import describe_misfit
from shared.weights.model_config import check_model_config, read_model_folder

LOCAL_DIR = "local-dir:"
OFFLINE = (
    "where there is no network, fetch the weights elsewhere and give --pretrained FILE (open_clip's, transformers' or "
    "OpenAI's), or --model local-dir:DIR (a folder with open_clip_config.json and weights); for a first try --model facet-tiny "
    "--pretrained none (random weights)"
)


def open_text_model(model: str, pretrained: str) -> tuple[Any, Any]:
    """An open_clip model in evaluation mode, and its tokenizer.

    Args:
        model, pretrained: as in `encode_prompts`.
    Raises:
        FacetError: no such model or weights; the file is something else, damaged, or of another model.
    """
    skip_unreachable_hub()
    import open_clip
    import torch

    open_clip.add_model_config(TOWERS)
    _check_names(model, pretrained)
    random = pretrained == "none"
    tag = {} if random or ":" in model else open_clip.get_pretrained_cfg(model.replace("/", "-"), pretrained)
    file = None if random or tag else _find_file(model, pretrained)
    weights = None
    if file is not None and file.suffix != ".npz":  # big_vision's, which open_clip reads into the built model
        weights = read_weights(file, partial(torch.load, map_location="cpu", weights_only=True))
        for note in weights.notes:
            print(f"note: {note}")
    activation = None if weights is None else weights.quick_gelu
    torch.manual_seed(0)
    logging.disable(logging.ERROR)  # open_clip's running commentary; what matters reaches the user as one line below
    try:
        clip = open_clip.create_model(
            model,
            pretrained=pretrained if tag else None,
            load_weights=file is None and not random,
            require_pretrained=file is None and not random,
            pretrained_text=file
            is None,  # of a file all weights are in it: none are fetched from the hub to be replaced
            force_quick_gelu=bool(tag.get("quick_gelu")),  # open_clip itself would only warn and compute something else
            **({} if activation is None else {"quick_gelu": activation}),
        )
        tokenizer = open_clip.get_tokenizer(model)
        if file is not None and weights is None:
            open_clip.load_checkpoint(clip, str(file))
    except Exception as error:
        if file is not None:
            raise FacetError(f"{file}: cannot be loaded as {model} ({first_line(error)})") from error
        what = f"the model {model}" if random else f"the weights {pretrained!r} of {model}"
        raise FacetError(f"{what} cannot be loaded ({first_line(error)}); {OFFLINE}") from error
    finally:
        logging.disable(logging.NOTSET)
    if weights is not None:
        assert file is not None
        _load_weights(clip, weights, file, model)
    return clip.eval(), tokenizer


def _check_names(model: str, pretrained: str) -> None:
    import open_clip

    if model.startswith(LOCAL_DIR):
        folder = Path(model.removeprefix(LOCAL_DIR))
        if not (folder / "open_clip_config.json").is_file():
            hint = (
                "; it is a folder of transformers: give --model NAME --pretrained FILE with open_clip's name of the model and "
                "the weights in it"
                if (folder / "config.json").is_file()
                else ""
            )
            raise FacetError(f"{folder}: not an open_clip model folder (no open_clip_config.json){hint}")
        read_model_folder(folder)
        return
    if model.startswith("hf-hub:"):
        from open_clip.factory import _get_hf_config

        try:
            config = _get_hf_config(model.removeprefix("hf-hub:"))
        except Exception as error:  # the hub raises many kinds
            raise FacetError(f"--model {model}: cannot be downloaded ({first_line(error)}); {OFFLINE}") from error
        check_model_config(config.get("model_cfg") or {}, model, from_hub=True)
        return
    model = model.replace("/", "-")  # as open_clip does
    if model not in open_clip.list_models():
        raise FacetError(
            f"--model {model!r}: open_clip knows no such model; for example ViT-B-16, facet-tiny (small, for a CPU), "
            "or local-dir:DIR for a folder with open_clip_config.json and weights"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained == "none" or pretrained in tags:
        return
    check_file_exists(pretrained)
    if not pretrained or not Path(pretrained).exists():
        raise FacetError(
            f"--pretrained {pretrained!r}: neither a checkpoint file nor a weights tag of {model}"
            + (f" (it has {', '.join(tags)})" if tags else " (it has none)")
            + "; `none` is random weights"
        )


def _find_file(model: str, pretrained: str) -> Path | None:
    """The file to read; None where open_clip fetches the weights itself."""
    if model.startswith(LOCAL_DIR):
        from open_clip.factory import _find_checkpoint_in_dir

        folder = Path(model.removeprefix(LOCAL_DIR))
        found = _find_checkpoint_in_dir(folder)
        if found is None:
            raise FacetError(f"{folder}: its weights cannot be loaded: no .safetensors, .bin or .pth in it")
        return Path(found)
    return None if ":" in model else Path(pretrained)


def _load_weights(clip: Any, weights: Weights, file: Path, model: str) -> None:
    """What `open_clip.load_checkpoint` does with a state that is read already."""
    import torch
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    wanted = clip.state_dict()
    try:
        state = {name: torch.from_numpy(np.array(array)) for name, array in weights.arrays.items()}
        state = convert_state_dict(clip, state)
        if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        for name in ("logit_scale", "logit_bias"):  # a number or a list of one
            if name in state and name in wanted and state[name].numel() == 1:
                state[name] = state[name].reshape(wanted[name].shape)
        if "logit_bias" in wanted and "logit_bias" not in state:
            state["logit_bias"] = torch.zeros_like(wanted["logit_bias"])
        before = describe_misfit(_shapes(state), _shapes(wanted), model)
        if before:
            resize_pos_embed(state, clip)
            resize_text_pos_embed(state, clip)
    except Exception as error:  # what open_clip expects of a state is not checked before it converts it
        raise FacetError(
            f"{file}: weights of another model than {model} ({first_line(error)}); check --model"
        ) from error
    if misfit := describe_misfit(_shapes(state), _shapes(wanted), model):
        if not any("token_embedding" in name for name in state):
            raise FacetError(
                f"{file}: holds an image tower alone, and prompts need the text tower; give the whole model's"
            )
        raise FacetError(f"{file}: weights of another model: {misfit}; give the --model that they are of")
    if before:
        print(f"note: {file}: its position embeddings are resized ({before})")
    clip.load_state_dict(state)


def _shapes(state: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
