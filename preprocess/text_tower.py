"""An open_clip model with its text tower and tokenizer, on the CPU."""

from __future__ import annotations

import logging
from typing import Any

from shared.errors import FacetError, first_line
from shared.weights.models import ADVICE, ModelLoader, skip_unreachable_hub


def open_text_model(model: str, pretrained: str) -> tuple[Any, Any]:
    """Return an open_clip model in evaluation mode, and its tokenizer.

    Args:
        model, pretrained: as `ModelLoader.find`; random weights have seed 0.
    Raises:
        FacetError: no such model or weights; the file is something else, damaged, or of another model.
    """
    skip_unreachable_hub()
    import open_clip
    import torch

    loader = ModelLoader(open_clip, torch)
    source = loader.find(model, pretrained)
    quick_gelu = source.config.get("quick_gelu")
    torch.manual_seed(0)
    logging.disable(logging.ERROR)  # open_clip's running commentary; what matters reaches the user as one line below
    try:
        clip = open_clip.create_model(
            model,
            load_weights=False,
            pretrained_text=source.weights is None,  # else all weights are in the file
            **({} if quick_gelu is None else {"quick_gelu": quick_gelu}),
        )
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip, timm and transformers raise many kinds
        raise FacetError(f"the model {model} cannot be built ({first_line(error)}); {ADVICE}") from error
    finally:
        logging.disable(logging.NOTSET)
    if source.weights is not None:
        loader.load(clip, source)
    return clip.eval(), tokenizer
