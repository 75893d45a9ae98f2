"""The prompts that a run's classes are told by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.cache import Cache
from shared.errors import CacheError
from shared.text import TextEmbeddings


def mean_prompts(text: TextEmbeddings) -> np.ndarray:
    """f32 (C, d): the mean over the prompts each class has. Its dot product with a unit vector is the mean cosine."""
    mask = text.mask[..., None]
    mean: np.ndarray = (text.embeddings * mask).sum(1) / mask.sum(1)
    return mean.astype(np.float32)


def find_prompts(cache: Cache, model: str, class_names: Sequence[str], text_mean: np.ndarray) -> TextEmbeddings | None:
    """The prompts in a cache that a trained model's text_mean f32 (C, d) was made of; None where the cache has others."""
    try:
        text = cache.read_text(model).select(class_names)
    except CacheError:
        return None
    mean = mean_prompts(text)
    return text if mean.shape == text_mean.shape and np.allclose(mean, text_mean, atol=1e-5) else None
