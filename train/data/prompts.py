"""The prompt embeddings of a run's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.schema import View, text_file_name
from shared.text import TextEmbeddings, read_text_embeddings
from shared.view_words import with_mirrored


def mean_prompts(text: TextEmbeddings) -> np.ndarray:
    """Return the mean over the prompts of each class, f32 (C, d). Its dot product with a unit vector is the mean cosine."""
    mask = text.mask[..., None]
    mean: np.ndarray = (text.embeddings * mask).sum(1) / mask.sum(1)
    return mean.astype(np.float32)


def class_texts(text: TextEmbeddings, views: Sequence[View]) -> np.ndarray:
    """Return what faces are compared with: `mean_prompts`, f32 (C, d), or those of each view, (W, C, d), if they differ.

    Args:
        views: of a face; W are these and their mirrored images, see `with_mirrored`.
    """
    if not text.views:
        return mean_prompts(text)
    return np.stack([mean_prompts(text.of_view(view)) for view in with_mirrored(views)])


def read_prompts(
    file: Path, model: str, class_names: Sequence[str] | None, views: Sequence[View] = ()
) -> TextEmbeddings:
    """Read the prompts of some classes from a file that `preprocess prompts --out` wrote.

    Args:
        model: the required model, or "". class_names: None: all classes of the file. views: of the faces.
    Raises:
        FacetError, CacheError: no such file, damaged, of another model, or without prompts for a class or a view.
    """
    text = read_text_embeddings(file)
    if model and text_file_name(model) != text_file_name(text.model):
        raise FacetError(f"--prompts {file}: was made by {text.model}, not by --model {model}; leave one of them out")
    try:
        return text.select(class_names).check_views(views)
    except CacheError as error:
        raise CacheError(f"--prompts {file}: {error}") from error


def find_prompts(cache: Cache, model: str, class_names: Sequence[str], text_mean: np.ndarray) -> TextEmbeddings | None:
    """Return the prompts in a cache that a trained model's text_mean f32 (C, d) was computed from; None if it has others."""
    try:
        text = cache.read_text(model).select(class_names)
    except CacheError:
        return None
    return match_prompts(text, text_mean)


def match_prompts(text: TextEmbeddings, text_mean: np.ndarray) -> TextEmbeddings | None:
    """Return the prompts if a trained model's text_mean f32 (C, d) was computed from them, else None."""
    mean = mean_prompts(text)
    return text if mean.shape == text_mean.shape and np.allclose(mean, text_mean, atol=1e-5) else None
