"""Embeddings: features that a frozen image tower computed from a cache's images, as files and in memory.

`embeddings/<key>/` holds one modality: embeddings.json describes the key, NNNNN.safetensors holds the features of 64 rows,
NNNNN-mirrored.safetensors those of the mirrored images. Written by `train.training.build_embeddings`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from shared.cache import Cache, num_shards
from shared.errors import FacetError
from shared.modalities import MODALITIES
from shared.schema import SHARD_ROWS, canonical_json, choose_views, fingerprint
from shared.store.storage import write_file
from train.config import TowerConfig
from train.data.items import find_rows_in_use
from train.data.stream import choose_rows
from train.tasks.item import Item

EMBEDDINGS_JSON = "embeddings.json"
FORMAT = "facet embeddings 1"
# The rounding of half precision, 5e-4 of a value, is as large as the change by a micro-expression.
PRECISION = "float32"
KEY_DIGITS = 32  # 128 bits of sha256
_HEADER_BYTES = 4096  # more than safetensors' own header of two tensors


@dataclass(frozen=True)
class EmbeddingSet:
    """The embeddings of one modality of a cache by one tower, as files in a folder."""

    folder: Path
    description: dict[str, Any]  # everything that determines the values; its hash names the folder
    shape: tuple[int, int, int]  # rows of the cache, V, d

    @property
    def num_shards(self) -> int:
        return num_shards(self.shape[0])

    def path(self, shard: int, mirrored: bool) -> Path:
        return self.folder / f"{shard:05d}{'-mirrored' if mirrored else ''}.safetensors"

    def num_rows(self, shard: int) -> int:
        return min(SHARD_ROWS, self.shape[0] - shard * SHARD_ROWS)

    def write(self, shard: int, mirrored: bool, features: np.ndarray) -> None:
        """Write the features f32 (R, V, d) of a shard's rows, zero where a row has no such image.

        Raises:
            FacetError: a feature is not finite; nothing is written.
        """
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=(1, 2)))[0]) + shard * SHARD_ROWS
            raise FacetError(f"the image tower makes numbers that are not finite of row {row}; check --pretrained")
        if not (self.folder / EMBEDDINGS_JSON).is_file():
            write_file(self.folder / EMBEDDINGS_JSON, canonical_json(self.description).encode())
        digest = _digest(self.description, shard, mirrored, features)
        data = safetensors.numpy.save({"features": np.ascontiguousarray(features, "<f4"), "sha256": digest})
        write_file(self.path(shard, mirrored), data)

    def read(self, shard: int, mirrored: bool) -> np.ndarray | None:
        """Read the features f32 (R, V, d) of a shard's rows; None if they are not computed yet.

        Raises:
            FacetError: the file is damaged.
        """
        path = self.path(shard, mirrored)
        shape = (self.num_rows(shard), *self.shape[1:])
        try:
            if path.stat().st_size > int(np.prod(shape)) * 4 + _HEADER_BYTES:
                raise ValueError
            stored = safetensors.numpy.load(path.read_bytes())
            features = check_features(path, self.description, stored)
            if features.shape != shape:
                raise ValueError
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError) as error:
            raise FacetError(f"{path}: damaged; `python -m train embed` computes it again") from error
        return features


def check_features(path: Path, description: dict[str, Any], stored: dict[str, np.ndarray]) -> np.ndarray:
    """Return the features of one file after a check of its checksum.

    Raises:
        ValueError: the file is damaged, is another file, or is not finite. KeyError: a part is missing.
    """
    number, _, copy = path.stem.partition("-")
    features = stored["features"]
    if features.dtype != np.dtype("<f4") or copy not in ("", "mirrored"):
        raise ValueError("not features")
    if not np.array_equal(stored["sha256"], _digest(description, int(number), bool(copy), features)):
        raise ValueError("its checksum is another")
    if not np.isfinite(features).all():
        raise ValueError("not finite")
    return features


def _digest(description: dict[str, Any], shard: int, mirrored: bool, features: np.ndarray) -> np.ndarray:
    """Return the sha256 of a file's identity and content, u8 (32,)."""
    digest = hashlib.sha256(canonical_json([description, shard, mirrored, list(features.shape)]).encode())
    digest.update(np.ascontiguousarray(features, "<f4").data)
    return np.frombuffer(digest.digest(), np.uint8)


def find_embeddings(root: Path, cache: Cache, tower: TowerConfig, modality: str) -> EmbeddingSet:
    """Return the embeddings of a modality by a tower, for all stored views; they may not be computed yet."""
    settings = cache.with_all_views().info.settings
    description = {
        "format": FORMAT,
        "content_hash": cache.info.content_hash,
        "dataset": cache.info.dataset,
        "modality": modality,
        "views": [[view.yaw_deg, view.pitch_deg] for view in settings.views],
        "dynamic": settings.dynamic,
        "tower": tower.config,
        "weights_hash": tower.weights_hash,
        "image_size": tower.image_size,
        "mean": list(tower.mean),
        "std": list(tower.std),
        "precision": PRECISION,
    }
    if MODALITIES[modality].is_colour and any(tower.background):
        description["background"] = list(tower.background)
    folder = root / fingerprint(description)[:KEY_DIGITS]
    dim = int(tower.config["embed_dim"])
    return EmbeddingSet(folder, description, (cache.info.num_samples, len(settings.views), dim))


@dataclass(frozen=True)
class RowBatch:
    """B items by the rows of their frames."""

    items: list[Item]
    rows: np.ndarray  # i64 (B, T)
    present: np.ndarray  # bool (B, T, M)
    has_reference: np.ndarray | None = None  # as in `RawBatch`


@dataclass(frozen=True)
class Embeddings:
    """Features of the n used rows of a cache, in memory."""

    features: Tensor  # f32 (F, n, M, V, d) on the device; F = 2 with mirrored images, else 1
    index: np.ndarray  # i64 (rows of the cache,): index among the n, −1 if not used
    present: np.ndarray  # bool (rows of the cache, M)

    def choose(
        self, items: Sequence[Item], num_frames: int, jitter: tuple[int, int] | None, references: bool
    ) -> RowBatch:
        """Return the rows of the items' frames. jitter, references: as in `stream_batches`."""
        rows = np.array([choose_rows(item, num_frames, jitter, references) for item in items])
        has_reference = np.array([item.reference is not None for item in items]) if references else None
        return RowBatch(list(items), rows, self.present[rows], has_reference)

    def gather(self, rows: np.ndarray, flipped: Tensor | None) -> Tensor:
        """Return features f32 (B, T, M, V, d) of rows i64 (B, T), mirrored where flipped bool (B,) is True."""
        index = torch.from_numpy(self.index[rows]).to(self.features.device)
        if flipped is None:
            return self.features[0][index]
        return self.features[flipped.long()[..., None], index]


def read_embeddings(
    root: Path,
    cache: Cache,
    tower: TowerConfig,
    modalities: Sequence[str],
    items: Sequence[Item],
    device: torch.device,
    *,
    mirrored: bool,
) -> Embeddings:
    """Load the features of all rows that items use, of the cache's chosen views; verify each file's checksum.

    Raises:
        FacetError: a file is missing or damaged.
    """
    rows = np.array(find_rows_in_use(items), np.int64)
    index = np.full(cache.info.num_samples, -1, np.int64)
    index[rows] = np.arange(len(rows))
    sets = [find_embeddings(root, cache, tower, modality) for modality in modalities]
    views = cache.info.settings.views
    chosen = choose_views(cache.with_all_views().info.settings.views, views)
    places = slice(None) if chosen is None else list(chosen)
    found = np.empty((1 + mirrored, len(rows), len(sets), len(views), sets[0].shape[2]), np.float32)
    for shard in np.unique(rows // SHARD_ROWS).tolist():
        here = rows[rows // SHARD_ROWS == shard]
        for column, one in enumerate(sets):
            for copy in range(1 + mirrored):
                features = one.read(shard, bool(copy))
                if features is None:
                    raise FacetError(f"{one.path(shard, bool(copy))}: missing; `python -m train embed` computes it")
                found[copy, index[here], column] = features[here - shard * SHARD_ROWS][:, places]
    present = np.array([[sample.has(m) for m in modalities] for sample in cache.samples])
    return Embeddings(torch.from_numpy(found).to(device), index, present)
