"""Embeddings: what a frozen image tower made of a cache's images, as files and in memory.

`embeddings/<key>/` holds one modality: embeddings.json says what the key stands for, NNNNN.safetensors the features of
64 rows, NNNNN-mirrored.safetensors those of the mirrored images. Written by `train.training.build_embeddings`.
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
from shared.schema import SHARD_ROWS, canonical_json, fingerprint
from shared.store.storage import write_file
from shared.views import choose_views
from train.config import TowerConfig
from train.data.items import Item, find_rows_in_use
from train.data.stream import choose_rows

EMBEDDINGS_JSON = "embeddings.json"
FORMAT = "facet embeddings 1"
# Half precision would halve the files, but its steps, 5e-4 of a value, are as large as what a micro-expression changes.
PRECISION = "float32"
KEY_DIGITS = 32  # 128 bits of sha256: a folder's name that is still short enough to read
_HEADER_BYTES = 4096  # more than safetensors' own header of two tensors


@dataclass(frozen=True)
class EmbeddingSet:
    """The embeddings of one modality of a cache by one tower, as files in a folder."""

    folder: Path
    description: dict[str, Any]  # everything that decides their values; the folder is named after it
    shape: tuple[int, int, int]  # rows of the cache, V, d

    @property
    def num_shards(self) -> int:
        return num_shards(self.shape[0])

    def path(self, shard: int, mirrored: bool) -> Path:
        return self.folder / f"{shard:05d}{'-mirrored' if mirrored else ''}.safetensors"

    def num_rows(self, shard: int) -> int:
        return min(SHARD_ROWS, self.shape[0] - shard * SHARD_ROWS)

    def write(self, shard: int, mirrored: bool, features: np.ndarray) -> None:
        """Writes the features f32 (R, V, d) of a shard's rows, zero where a row has no such image.

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
        """The features f32 (R, V, d) of a shard's rows; None where they were not computed yet.

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
    """The features in one file of embeddings, compared with the checksum in it.

    Raises:
        ValueError: they are not what was written, of another file, or not finite. KeyError: a part is missing.
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
    """u8 (32,): sha256 of what a file is, and of what it holds."""
    digest = hashlib.sha256(canonical_json([description, shard, mirrored, list(features.shape)]).encode())
    digest.update(np.ascontiguousarray(features, "<f4").data)
    return np.frombuffer(digest.digest(), np.uint8)


def find_embeddings(root: Path, cache: Cache, tower: TowerConfig, modality: str) -> EmbeddingSet:
    """Where the embeddings of a cache's modality by a tower are, or would be: of all its stored views."""
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
    folder = root / fingerprint(description)[:KEY_DIGITS]
    dim = int(tower.config["embed_dim"])
    return EmbeddingSet(folder, description, (cache.info.num_samples, len(settings.views), dim))


@dataclass(frozen=True)
class RowBatch:
    """B items by the rows of their frames: rows i64 (B, T); present bool (B, T, M); has_reference as in `RawBatch`."""

    items: list[Item]
    rows: np.ndarray
    present: np.ndarray
    has_reference: np.ndarray | None = None


@dataclass(frozen=True)
class Embeddings:
    """Features of a cache's images in memory.

    features: f32 (F, n, M, V, d) on the device, F = 1, or 2 where the mirrored images' follow; n rows that are in use.
    place: i64 (rows,), a row of the cache → its place among the n, −1 where it is not in use. present: bool (rows, M).
    """

    features: Tensor
    place: np.ndarray
    present: np.ndarray

    def choose(
        self, items: Sequence[Item], num_frames: int, jitter: tuple[int, int] | None, references: bool
    ) -> RowBatch:
        """The rows that items are seen by. jitter, references: as `stream_batches`."""
        rows = np.array([choose_rows(item, num_frames, jitter, references) for item in items])
        has_reference = np.array([item.reference is not None for item in items]) if references else None
        return RowBatch(list(items), rows, self.present[rows], has_reference)

    def gather(self, rows: np.ndarray, flipped: Tensor | None) -> Tensor:
        """Features f32 (*B, T, M, V, d) of rows i64 (*B, T); of the mirrored images where flipped bool (*B,) says so."""
        place = torch.from_numpy(self.place[rows]).to(self.features.device)
        if flipped is None:
            return self.features[0][place]
        return self.features[flipped.long()[..., None], place]


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
    """Loads the features of all rows that items may be seen by, of the cache's chosen views, each file's checksum verified.

    Raises:
        FacetError: a file is missing or damaged.
    """
    rows = np.array(find_rows_in_use(items), np.int64)
    place = np.full(cache.info.num_samples, -1, np.int64)
    place[rows] = np.arange(len(rows))
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
                found[copy, place[here], column] = features[here - shard * SHARD_ROWS][:, places]
    present = np.array([[sample.has(m) for m in modalities] for sample in cache.samples])
    return Embeddings(torch.from_numpy(found).to(device), place, present)
