"""Read an open_clip model config from an untrusted file; refuse one that would run code or use the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line

MODEL_CONFIG = "open_clip_config.json"
MAX_CONFIG_BYTES = 1 << 24
# Keywords of transformers' tokenizers that only set how text is split; others may run code (trust_remote_code) or name files.
_TOKENIZER_KEYS = {
    "additional_special_tokens", "clean", "context_length", "language", "model_max_length", "padding_side", "reduction_mask",
    "strip_sep_token", "truncation_side", "use_fast",
}  # fmt: skip
_MAX_NUMBER = 1 << 20  # of tokens; nothing else in a config is as large
_MAX_SIZES = {"width": 1 << 14, "embed_dim": 1 << 11, "image_size": 1 << 13, "context_length": 1 << 14, "layers": 512}
_MAX_SIZES |= {"patch_size": 1 << 10, "head_width": 1 << 14, "heads": 1 << 10}
_MAX_DEPTH, _MAX_ENTRIES = 6, 256


def read_model_config(path: Path, *, from_hub: bool) -> dict[str, Any]:
    """Read and check an open_clip_config.json: model_cfg, preprocess_cfg.

    Args:
        from_hub: as `check_model_config`.
    Raises:
        FacetError: missing, not JSON, or `check_model_config` refuses it.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        whole = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        hint = (
            "; it is a folder of transformers: give --model NAME --pretrained FILE with open_clip's name of the model"
        )
        raise FacetError(
            f"{path.parent}: not an open_clip model folder (no {MODEL_CONFIG})"
            + (hint if path.with_name("config.json").is_file() else "")
        ) from error
    except (ValueError, RecursionError) as error:
        raise FacetError(f"{path}: not valid JSON ({first_line(error)})") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("model_cfg"), dict):
        raise FacetError(f"{path}: holds no model_cfg; is it an open_clip model?")
    check_model_config(whole["model_cfg"], str(path), from_hub=from_hub)
    return whole


def check_model_config(config: Mapping[str, Any], where: str, *, from_hub: bool) -> None:
    """Refuse a config that could run code, contact an address that the user did not type, or exhaust memory.

    Args:
        config: open_clip's model_cfg. where: the file or model it is of, for the message. from_hub: the user asked for a
            repository of the hub; its text tower may be another repository's.
    Raises:
        FacetError: names what is refused.
    """
    text, vision = (part if isinstance(part := config.get(f"{name}_cfg"), dict) else {} for name in ("text", "vision"))
    keywords = text.get("tokenizer_kwargs") or {}
    if not isinstance(keywords, dict) or (odd := sorted(keywords.keys() - _TOKENIZER_KEYS)):
        name = odd[0] if isinstance(keywords, dict) else "tokenizer_kwargs"
        raise FacetError(
            f"{where}: its tokenizer asks for {name[:40]!r}, which may run code; remove it if you trust the model"
        )
    if not from_hub and text.get("hf_model_name"):
        raise FacetError(
            f"{where}: its text tower is {str(text['hf_model_name'])[:60]!r} of the hub, which a folder may not ask for; give "
            "--model hf-hub:ORG/NAME yourself"
        )
    if ":" in str(vision.get("timm_model_name") or ""):
        raise FacetError(
            f"{where}: its image tower is {str(vision['timm_model_name'])[:60]!r}, which would be asked for elsewhere; "
            "expected a name of timm's own"
        )
    _check_sizes(config, where, 0)


def _check_sizes(value: object, where: str, depth: int, name: str = "") -> None:
    if isinstance(value, dict | list):
        if depth > _MAX_DEPTH or len(value) > _MAX_ENTRIES:
            raise FacetError(f"{where}: {name or 'it'} is no model's size")
        for key, item in value.items() if isinstance(value, dict) else ((name, item) for item in value):
            _check_sizes(item, where, depth + 1, str(key))
    elif isinstance(value, int | float) and not (
        (1 if name in _MAX_SIZES else -_MAX_NUMBER) <= value <= _MAX_SIZES.get(name, _MAX_NUMBER)
    ):  # NaN, too
        raise FacetError(f"{where}: {name} is {value}, which is no model's size")
