"""An open_clip model with its text tower and tokenizer, on the CPU."""

from __future__ import annotations

import shared.text_model
from shared.weights.models import skip_unreachable_hub


def open_text_model(model: str, pretrained: str) -> shared.text_model.TextModel:
    """As `shared.text_model.open_text_model`, with the modules that it needs, which take seconds to import."""
    skip_unreachable_hub()
    import open_clip
    import torch

    return shared.text_model.open_text_model(open_clip, torch, model, pretrained)
