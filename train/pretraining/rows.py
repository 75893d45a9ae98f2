"""Captioned rows of several caches: read, split by subject, and streamed as images of random views and modalities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shared.cache import Cache, open_cache
from shared.captions import read_cache_captions
from shared.errors import FacetError
from shared.modalities import MODALITIES
from shared.store.arrays import ABSENT
from train.config import TowerConfig
from train.data.augment import augment, draw_parameters
from train.data.order import epoch_order
from train.data.pixels import mirror, normalise, resize, to_device, to_unit, view_as_tensor
from train.data.stream import ImageSource, PendingImages, RawBatch, stream_batches
from train.tasks.item import Item

_MAX_IMAGES = 64  # of a row in a step


@dataclass(frozen=True)
class CaptionTable:
    """The distinct captions of all caches: tokens i64 (U, L), embeddings f32 (U, d)."""

    model: str
    pretrained: str
    weights_hash: str
    tokens: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class CaptionedRows:
    """Rows of a cache that have captions and images.

    number: of the cache. captions: i64 (N, K) of all rows of the cache, in the CaptionTable; −1 = none.
    """

    number: int
    cache: Cache
    modalities: tuple[str, ...]
    captions: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        """Return the rows that have a caption and an image, i64 (n,)."""
        valid = np.array([sample.valid for sample in self.cache.samples])
        return np.flatnonzero(valid & (self.captions[:, 0] >= 0) & self.present.any(1))

    @property
    def num_views(self) -> int:
        return len(self.cache.info.settings.views)

    @cached_property
    def items(self) -> list[Item]:
        """Return an item for each row of the cache."""
        samples = self.cache.samples
        return [Item(sample.sample_id, sample.subject, sample.label, (row,), row) for row, sample in enumerate(samples)]

    @cached_property
    def present(self) -> np.ndarray:
        """Return which modalities each row of the cache has, bool (N, M)."""
        found = [[sample.has(m) for m in self.modalities] for sample in self.cache.samples]
        return np.array(found, bool).reshape(-1, len(self.modalities))

    def person_of(self, row: int) -> tuple[str, str]:
        """Return who a row shows: in two caches of a data set, equal names are the same person."""
        return self.cache.info.dataset, self.cache.samples[row].subject


def read_captioned(
    paths: Sequence[Path], model: str | None, modalities: Sequence[str] | None
) -> tuple[list[CaptionedRows], CaptionTable]:
    """Open caches and read their captions.

    Args:
        model: of the captions; None: the only ones of each cache.
        modalities: None: all of each cache.
    Raises:
        FacetError, CacheError: a cache has no captions, or none of the modalities; two caches' captions are of other models.
    """
    caches = [open_cache(path) for path in paths]
    read = [read_cache_captions(cache, model) for cache in caches]
    first, num_wordings = read[0], max(captions.index.shape[1] for captions in read)
    found: list[CaptionedRows] = []
    places: dict[str, int] = {}
    tokens: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    for number, (cache, captions) in enumerate(zip(caches, read, strict=True)):
        if (captions.weights_hash, captions.tokens.shape[1]) != (first.weights_hash, first.tokens.shape[1]):
            raise FacetError(
                f"{paths[number]}: its captions were made with {captions.model} and weights {captions.pretrained!r}, those of "
                f"{paths[0]} with {first.model} and {first.pretrained!r}; "
                "run `python -m preprocess prompts --captions` with the same"
            )
        there = cache.info.settings.modalities
        chosen = tuple(m for m in there if modalities is None or m in modalities)
        if not chosen:
            raise FacetError(f"--modalities: {paths[number]} holds none of them (it holds {', '.join(there)})")
        for text, token, embedding in zip(captions.texts, captions.tokens, captions.embeddings, strict=True):
            if text not in places:
                places[text] = len(places)
                tokens.append(token)
                embeddings.append(embedding)
        numbers = np.array([places[text] for text in captions.texts])
        index = np.full((len(captions.index), num_wordings), -1)
        index[:, : captions.index.shape[1]] = np.where(captions.index >= 0, numbers[captions.index], -1)
        found.append(CaptionedRows(number, cache, chosen, index))
    table = CaptionTable(
        first.model,
        first.pretrained,
        first.weights_hash,
        torch.from_numpy(np.stack(tokens)).long(),
        torch.from_numpy(np.stack(embeddings)),
    )
    return found, table


def split_subjects(
    sources: Sequence[CaptionedRows], fraction: float, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Hold out a fraction of all subjects, at least one unless it is 0.

    Returns:
        Of each cache the rows to train on and the rows to validate on; the subjects held out.
    Raises:
        FacetError: nothing is left to train on.
    """
    people = sorted({source.person_of(row) for source in sources for row in source.rows})
    num = max(round(fraction * len(people)), 1) if fraction else 0
    if num >= len(people):
        raise FacetError(f"--validate {fraction:g}: of {len(people)} subjects with captions, none is left to train on")
    order = np.random.default_rng([seed, len(people)]).permutation(len(people))
    held_out = {people[index] for index in order[:num]}
    is_held = [np.array([source.person_of(row) in held_out for row in source.rows], bool) for source in sources]
    train = [source.rows[~held] for source, held in zip(sources, is_held, strict=True)]
    validate = [source.rows[held] for source, held in zip(sources, is_held, strict=True)]
    return train, validate, sorted(f"{dataset}/{subject}" for dataset, subject in held_out)


def order_rows(rows: Sequence[np.ndarray], num_steps: int, seed: int, epoch: int) -> list[list[np.ndarray]]:
    """Return the rows of each step of an epoch, of each cache, in proportion to their numbers: each row once.

    A cache with fewer rows than steps has none in some steps.
    """
    orders = [of_cache[epoch_order(len(of_cache), seed, epoch)] for of_cache in rows]
    parts = [np.array_split(order, num_steps) for order in orders]
    return [list(step) for step in zip(*parts, strict=True)]


def draw_images(source: CaptionedRows, num: int, seed: int, epoch: int) -> np.ndarray:
    """Draw `num` images of each row of a cache: i64 (N, num), modality · V + view, −1 where a row has no more images."""
    generator = np.random.default_rng([seed, epoch, source.number])
    keys = generator.random((*source.present.shape, source.num_views))
    keys[~source.present] = -1
    keys = keys.reshape(len(keys), -1)
    order = np.argsort(-keys, axis=1)[:, :num]
    return np.where(np.take_along_axis(keys, order, 1) >= 0, order, -1)


def choose_front_images(source: CaptionedRows) -> np.ndarray:
    """Return the image nearest to the front in each modality, as `draw_images`: i64 (N, M)."""
    images = np.arange(len(source.modalities)) * source.num_views + source.cache.info.settings.front_view
    return np.where(source.present, images, -1)


def draw_captions(source: CaptionedRows, seed: int, epoch: int) -> np.ndarray:
    """Draw a caption of each row of a cache: i64 (N,) in the CaptionTable, −1 where it has none."""
    num = (source.captions >= 0).sum(1)
    place = np.random.default_rng([seed, epoch, source.number, 1]).random(len(num)) * num
    found: np.ndarray = source.captions[np.arange(len(num)), place.astype(np.int64)]
    return found


@dataclass(frozen=True)
class ChosenImages:
    """An `ImageSource` that reads only the modalities of which an image is chosen. chosen: i64 (N, n), as `draw_images`."""

    source: ImageSource
    modalities: tuple[str, ...]
    num_views: int
    chosen: np.ndarray

    def start(self, modality: str, rows: np.ndarray, slot: int) -> PendingImages:
        needed = (self.chosen[rows] // self.num_views == self.modalities.index(modality)).any(1)
        return self.source.start(modality, np.where(needed, rows, ABSENT), slot)


def stream_steps(
    sources: Sequence[CaptionedRows],
    images: Sequence[ImageSource],
    steps: Sequence[Sequence[np.ndarray]],
    chosen: Sequence[np.ndarray],
) -> Iterator[list[tuple[CaptionedRows, RawBatch]]]:
    """Yield the stored images of each step, of every cache that has rows in it. They are valid until the next step.

    Args:
        images: where each cache's images come from.
        steps: of each step and cache the rows, as `order_rows`. chosen: of each cache, as `draw_images`.
    """
    streams = []
    for number, source in enumerate(sources):
        batches = [[source.items[row] for row in step[number]] for step in steps if len(step[number])]
        reader = ChosenImages(images[number], source.modalities, source.num_views, chosen[number])
        streams.append(stream_batches(source.cache, batches, source.modalities, 1, source=reader))
    try:
        for step in steps:
            yield [(source, next(streams[n])) for n, source in enumerate(sources) if len(step[n])]
    finally:
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]  # ends its pending reads


def prepare_images(
    source: CaptionedRows,
    raw: RawBatch,
    chosen: np.ndarray,
    tower: TowerConfig,
    device: torch.device,
    *,
    augmentation: str = "none",
    seed: int = 0,
    epoch: int = 0,
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return the chosen images of a batch, normalised, each augmented by itself.

    Args:
        chosen: i64 (N, n) of the cache's rows, as `draw_images`.
        augmentation: one of --augment.
    Returns:
        f32 (P, 3, S, S), grouped by modality; of each image its row in the cache, i64 (P,), and its modality's place in
        `source.modalities`, i64 (P,).
    """
    rows = np.array([item.rows[0] for item in raw.items])
    wanted = chosen[rows]
    found, of_images, numbers = [], [], []
    for number, modality in enumerate(source.modalities):
        owner, place = np.nonzero(wanted // source.num_views == number)
        if not len(owner):
            continue
        stored = raw.images[modality]
        stored = view_as_tensor(stored) if isinstance(stored, np.ndarray) else stored
        pixels = to_device(stored[owner, 0, wanted[owner, place] % source.num_views], device)
        repeats = place + _MAX_IMAGES * source.number
        parameters = draw_parameters(seed, epoch, rows[owner].tolist(), repeats.tolist()).to(device)
        if augmentation != "none":
            flipped = parameters.flip.view(-1, *[1] * (pixels.ndim - 1))
            pixels = torch.where(flipped, mirror(pixels, modality), pixels)
        dynamic = bool(source.cache.info.settings.dynamic)
        images = to_unit(pixels, modality, dynamic=dynamic, background=tower.background)
        images = resize(images, tower.image_size)
        if augmentation == "standard":
            colour = (0,) if MODALITIES[modality].is_colour else ()
            images = images[:, None, None, None].contiguous()
            images = augment(images, parameters, colour, tower.background)[:, 0, 0, 0]
        found.append(normalise(images, tower.mean, tower.std))
        of_images.append(rows[owner])
        numbers.append(np.full(len(owner), number))
    return torch.cat(found), np.concatenate(of_images), np.concatenate(numbers)
