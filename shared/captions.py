"""Captions of a cache's rows: write and read text/<model>.captions.h5."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.cache import Cache, find_caption_files
from shared.errors import CacheError
from shared.schema import CAPTION_DATASETS, CAPTIONS_SUFFIX, captions_file_name
from shared.text import read_hashed_tables, write_hashed_tables

MAX_BYTES = 1 << 30  # of the file: 400,000 captions of ViT-B-16
_ATTRIBUTES = {"model": str, "pretrained": str, "weights_hash": str, "random_weights": bool, "content_hash": str}


@dataclass(frozen=True)
class Captions:
    """U distinct captions, and which of them describe each of N rows, in K wordings.

    tokens: i32 (U, L) of the model's tokenizer; embeddings: f32 (U, d) of its text tower, unit length; index: i32 (N, K),
    −1 = none. A row has all its captions before its first −1.
    """

    texts: tuple[str, ...]
    index: np.ndarray
    tokens: np.ndarray
    embeddings: np.ndarray
    model: str
    pretrained: str  # the tag or file the weights came from; "none" = random weights
    weights_hash: str  # sha256 of the whole model's weights
    random_weights: bool
    content_hash: str  # of the cache whose rows are described

    def __post_init__(self) -> None:
        num = len(self.texts)
        for name, kind, array in (
            ("index", np.int32, self.index),
            ("tokens", np.int32, self.tokens),
            ("embeddings", np.float32, self.embeddings),
        ):
            if array.dtype != kind or array.ndim != 2 or 0 in array.shape or (name != "index" and len(array) != num):
                raise CacheError(f"{name} of {num} captions: found {array.dtype} {array.shape}")
        if len(set(self.texts)) != num or "" in self.texts:
            raise CacheError("a caption is empty, or is there twice")
        if self.index.min() < -1 or self.index.max() >= num or self.tokens.min() < 0:
            raise CacheError("index or tokens name what is not there")
        if (np.diff((self.index < 0).astype(np.int8), axis=1) < 0).any():
            raise CacheError("a row has a caption after its first -1")
        with np.errstate(over="ignore"):  # infinite is not of unit length either
            norms = np.linalg.norm(self.embeddings, axis=1)
        if not np.allclose(norms, 1, atol=1e-3):  # also refuses NaN
            raise CacheError("embeddings are not of unit length")


def write_captions(path: Path, captions: Captions) -> None:
    """Write text/<model>.captions.h5 and its sha256 beside it."""
    tables = {
        "captions": np.array(captions.texts),
        **{name: getattr(captions, name) for name in ("index", "tokens", "embeddings")},
    }
    write_hashed_tables(path, tables, {name: getattr(captions, name) for name in _ATTRIBUTES})


def read_captions(path: Path) -> Captions:
    """Read a file that `python -m preprocess prompts --captions` wrote.

    Raises:
        CacheError: missing, damaged, of another version, or not such a file.
    """
    tables, attributes = read_hashed_tables(
        path, "captions", tables=CAPTION_DATASETS, attributes=_ATTRIBUTES, most_bytes=MAX_BYTES
    )
    if missing := [name for name in (*CAPTION_DATASETS, *_ATTRIBUTES) if name not in tables and name not in attributes]:
        raise CacheError(f"{path}: lacks {', '.join(missing)}; run prompts --captions again")
    try:
        return Captions(
            texts=tuple(map(str, tables["captions"].ravel())),
            index=tables["index"],
            tokens=tables["tokens"],
            embeddings=tables["embeddings"],
            **{name: kind(attributes[name]) for name, kind in _ATTRIBUTES.items()},
        )
    except CacheError as error:
        raise CacheError(f"{path}: {error}; run prompts --captions again") from error


def read_cache_captions(cache: Cache, model: str | None) -> Captions:
    """Read the captions of a cache, of a model or the only ones there are.

    Raises:
        CacheError: there are none, or several; they are damaged, or describe an earlier state of the cache.
    """
    files = find_caption_files(cache.path)
    found = ", ".join(file.name.removesuffix(CAPTIONS_SUFFIX) for file in files) or "none"
    advice = f"make them with `python -m preprocess prompts --cache {cache.path} --captions --model NAME`"
    if model is not None:
        files = [file for file in files if file.name == captions_file_name(model)]
    if len(files) != 1:
        what = f"no captions of {model}" if model else "no captions" if not files else "captions of several models"
        raise CacheError(f"{cache.path}: {what} (found: {found}); {advice if not files else 'choose one with --model'}")
    captions = read_captions(files[0])
    if captions.content_hash != cache.info.content_hash or len(captions.index) != len(cache.samples):
        raise CacheError(f"{files[0]}: describes the cache as it was before its last build; {advice}")
    return captions
