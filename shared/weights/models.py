"""Find and load models by name: open_clip's configuration, and weights that are read without running code.

Both stages build with open_clip; this package imports neither it nor torch, so they hand both over.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from shared.errors import FacetError, first_line
from shared.weights.files import Weights, read_weights
from shared.weights.layout import describe_misfit
from shared.weights.model_config import MODEL_CONFIG, read_model_config

# open_clip model configurations that ship with the product, beside open_clip's own.
TOWERS = Path(__file__).parents[1] / "towers"
LOCAL_DIR, HUB = "local-dir:", "hf-hub:"  # at the start of a name of a model
RANDOM = "none"  # instead of weights: random initial ones
# Weights that ship beside their configuration have a tag: MODEL.TAG.safetensors. Of the token table they hold some rows.
TOKEN_ROWS, TOKEN_ROWS_WEIGHT = "token_rows", "token_rows_weight"
_WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json")
ADVICE = (
    "without a network give --pretrained FILE (downloaded weights of open_clip, transformers or OpenAI), --model local-dir:DIR "
    f"(a folder with {MODEL_CONFIG} and weights) or, for a first try, --model facet-tiny --pretrained synthetic-2 (small)"
)


@dataclass(frozen=True)
class ModelSource:
    """A model's configuration and, unless they are random, its weights."""

    name: str
    config: dict[str, Any]  # open_clip's model_cfg; quick_gelu as its weights need it
    preprocess: dict[str, Any]  # mean and std of its images, where they are known
    path: Path | None = None
    weights: Weights | None = None

    @property
    def kept_tokens(self) -> np.ndarray | None:
        """Return the tokens whose embeddings the weights hold, i64 (R,); None: all (see `write_shipped`)."""
        rows = None if self.weights is None else self.weights.arrays.get(TOKEN_ROWS)
        return None if rows is None else np.asarray(rows, np.int64).ravel()


class ModelLoader:
    """Find and load models by open_clip's names."""

    def __init__(self, open_clip: Any, torch: Any) -> None:
        """Register the configurations in shared/towers.

        Args:
            open_clip, torch: the modules; call `skip_unreachable_hub` before importing them.
        """
        self._open_clip, self._torch = open_clip, torch
        open_clip.add_model_config(TOWERS)

    def find(self, model: str, pretrained: str) -> ModelSource:
        """Find a model and read its weights, downloading what open_clip downloads.

        Args:
            model: an open_clip model name, a config in shared/towers, `local-dir:DIR` or `hf-hub:ORG/NAME`.
            pretrained: an open_clip tag, a tag of weights that ship, or a checkpoint file of the whole model; `none` = random
                weights. For local-dir: and hf-hub: anything but `none` means the weights beside the config.
        Raises:
            FacetError: no such model, tag or file; no network; a file that holds no weights of CLIP.
        """
        config, preprocess = self.find_config(model)
        if pretrained == RANDOM:
            return ModelSource(model, config, preprocess)
        tag = dict(self._open_clip.get_pretrained_cfg(model.replace("/", "-"), pretrained))
        path = self._find_weights(model, pretrained, tag)
        weights = read_weights(path, partial(self._torch.load, map_location="cpu", weights_only=True))
        # ViT-B-16 is one model to open_clip, whichever activation its weights were trained with
        quick_gelu = tag.get("quick_gelu") or weights.quick_gelu
        if quick_gelu is not None:
            config = {**config, "quick_gelu": quick_gelu}
        preprocess = {**preprocess, **{key: tag[key] for key in ("mean", "std") if tag.get(key)}}
        return ModelSource(model, config, preprocess, path, weights)

    def find_config(self, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return open_clip's model_cfg and preprocess_cfg, empty where a model has none.

        Raises:
            FacetError: no such model; its config cannot be read or downloaded, or `check_model_config` refuses it.
        """
        if model.startswith(LOCAL_DIR):
            folder = Path(model.removeprefix(LOCAL_DIR))
            whole = read_model_config(folder / MODEL_CONFIG, from_hub=False)
        elif model.startswith(HUB):
            whole = read_model_config(self._download_from_hub(model, MODEL_CONFIG), from_hub=True)
        else:
            found = self._open_clip.get_model_config(model.replace("/", "-"))
            if found is None:
                raise FacetError(
                    f"--model {model}: open_clip knows no such model; "
                    "python -c 'import open_clip; print(*open_clip.list_models())' lists them"
                )
            whole = {"model_cfg": found}
        return dict(whole["model_cfg"]), dict(whole.get("preprocess_cfg") or {})

    def _find_weights(self, model: str, pretrained: str, tag: dict[str, Any]) -> Path:
        """Return the file of a model's weights, downloaded where it is not here."""
        if model.startswith(LOCAL_DIR):
            folder = Path(model.removeprefix(LOCAL_DIR))
            found = self._open_clip.factory._find_checkpoint_in_dir(folder)
            if found is None:
                raise FacetError(
                    f"--model {model}: no weights (.safetensors, .bin, .pth) in {folder}; put them there, or give "
                    "--pretrained none (random weights)"
                )
            return Path(found)
        if model.startswith(HUB):
            return self._download_from_hub(model, None)
        if tag:
            try:
                return Path(self._open_clip.download_pretrained(tag))
            except Exception as error:  # the hub and urllib raise many kinds
                raise FacetError(
                    f"the weights {pretrained} of {model} cannot be downloaded ({first_line(error)}); {ADVICE}"
                ) from error
        shipped = find_shipped(model)
        if pretrained in shipped:
            return shipped[pretrained]
        path = Path(pretrained)
        if pretrained and path.exists():
            return path
        if "/" in pretrained or path.suffix in _WEIGHT_SUFFIXES:
            raise FacetError(f"--pretrained {pretrained}: no such file; check the path (from {Path.cwd()})")
        known = self._open_clip.list_pretrained_tags_by_model(model.replace("/", "-"))
        tags = ", ".join([*known, *shipped]) or "none"
        raise FacetError(f"--pretrained {pretrained}: neither a file nor a tag of {model} (its tags: {tags}); {ADVICE}")

    def _download_from_hub(self, model: str, name: str | None) -> Path:
        """Download a file of a model on the hub; None: its weights."""
        try:
            return Path(self._open_clip.pretrained.download_pretrained_from_hf(model.removeprefix(HUB), filename=name))
        except Exception as error:  # the hub raises many kinds
            raise FacetError(f"--model {model}: cannot be downloaded ({first_line(error)}); {ADVICE}") from error

    def build(self, source: ModelSource, *, seed: int = 0) -> Any:
        """Build a whole model with its text tower, and load its weights; random ones are drawn from the seed.

        Raises:
            FacetError: the model cannot be built, or the weights are of another one.
        """
        quick_gelu = source.config.get("quick_gelu")
        self._torch.manual_seed(seed)
        # open_clip's running commentary; what matters reaches the user as one line below
        logging.disable(logging.ERROR)
        try:
            clip = self._open_clip.create_model(
                source.name,
                load_weights=False,
                pretrained_text=source.weights is None,  # else all weights are in the file
                **({} if quick_gelu is None else {"quick_gelu": quick_gelu}),
            )
        except Exception as error:  # open_clip, timm and transformers raise many kinds
            raise FacetError(f"the model {source.name} cannot be built ({first_line(error)}); {ADVICE}") from error
        finally:
            logging.disable(logging.NOTSET)
        if source.weights is not None:
            self.load(clip, source)
        return clip

    def load(self, module: Any, source: ModelSource) -> None:
        """Load weights into a built model, or into a module that holds an image tower as `.visual`.

        As `open_clip.load_checkpoint`, but the weights are read already; prints notes.

        Raises:
            FacetError: the weights are of another model.
        """
        assert source.weights is not None and source.path is not None
        convert, models, path, name = self._open_clip.convert, self._open_clip.model, source.path, source.name
        wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        is_whole = not all(key.startswith("visual.") for key in wanted)
        try:
            state = {key: self._torch.from_numpy(np.array(array)) for key, array in source.weights.arrays.items()}
            state = convert.convert_state_dict(module, state)
            if is_whole:
                state = self._fit_text(module, state, wanted)
            else:
                state = {key: value for key, value in state.items() if key.startswith("visual.")}
            before = describe_misfit(_shapes(state), wanted, name)
            if before:
                models.resize_pos_embed(state, module)
                models.resize_text_pos_embed(state, module)
        except Exception as error:  # what open_clip expects of a state is not checked before it converts it
            raise FacetError(
                f"{path}: weights of another model than {name} ({first_line(error)}); check --model"
            ) from error
        if misfit := describe_misfit(_shapes(state), wanted, name):
            if is_whole and not any("token_embedding" in key for key in state):
                raise FacetError(
                    f"{path}: holds an image tower alone, and prompts need the text tower; give the whole model's"
                )
            raise FacetError(f"{path}: weights of another model: {misfit}; give the --model that they are of")
        for note in (
            *source.weights.notes,
            *([f"{path}: its position embeddings are resized ({before})"] if before else ()),
        ):
            print(f"note: {note}")
        module.load_state_dict(state)

    def _fit_text(self, clip: Any, state: dict[str, Any], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Name a state's text tower, and shape its token table and scalars, as a model has them."""
        if TOKEN_ROWS in state:
            state = self._expand_tokens(state, wanted)
        if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
            state = self._open_clip.model.convert_to_custom_text_state_dict(state)
        for key in ("logit_scale", "logit_bias"):  # a number or a list of one
            if key in state and key in wanted and state[key].numel() == 1:
                state[key] = state[key].reshape(wanted[key])
        if "logit_bias" in wanted and "logit_bias" not in state:
            state["logit_bias"] = self._torch.zeros(wanted["logit_bias"])
        return state

    def _expand_tokens(self, state: dict[str, Any], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Replace the rows of a token table by the whole table, 0 where a row is not held."""
        state = dict(state)
        rows, weight = state.pop(TOKEN_ROWS).long(), state.pop(TOKEN_ROWS_WEIGHT)
        shape = next(shape for key, shape in wanted.items() if key.endswith("token_embedding.weight"))
        if rows.ndim != 1 or weight.shape != (len(rows), shape[1]) or rows.min() < 0 or rows.max() >= shape[0]:
            raise ValueError(f"{TOKEN_ROWS} are not rows of its token table")
        state["token_embedding.weight"] = self._torch.zeros(shape)
        state["token_embedding.weight"][rows] = weight
        return state


def find_shipped(model: str) -> dict[str, Path]:
    """Return the weights of a model that ship with the product: tag → file."""
    names = sorted(path.name for path in TOWERS.glob("*.safetensors") if path.name.startswith(f"{model}."))
    return {name.removeprefix(f"{model}.").removesuffix(".safetensors"): TOWERS / name for name in names}


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def skip_unreachable_hub() -> None:
    """Make huggingface_hub use local files only where there is no network, instead of waiting for a minute.

    It reads the variable when it is imported, so call this before open_clip is, which imports it.
    """
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        if not any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):  # a proxy resolves for us
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
