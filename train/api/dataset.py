"""Samples of a cache as torch datasets, for models of your own."""

from __future__ import annotations

import copy
import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.schema import View
from train.config import TowerConfig
from train.data.augment import draw_parameters
from train.data.batch_transform import BatchTransform
from train.data.epoch import stream_epoch
from train.data.items import choose_classes, choose_frames, choose_modalities, find_rows_in_use, gather_items
from train.data.order import epoch_batches, rank_part, split_batches
from train.data.stream import RawBatch, StoredImages
from train.model.batch import Batch
from train.option_parser import read_values
from train.options import DataOptions, Options
from train.protocols.selection import keep_classes
from train.protocols.where import keep_where
from train.resolve import check_options, check_sequences, resolve_views
from train.split import split_folds
from train.tasks.item import Item
from train.tasks.task import find_task

_OPTIONS = {field.name for field in dataclasses.fields(DataOptions)} - {
    *("train_views", "frame_stride", "sampler", "augment", "shuffle_labels", "centre_scores")  # not of samples
} | {"classes", "task"}
AUGMENT = ("none", "flip", "standard")


class CacheDataset(Dataset[dict[str, torch.Tensor]]):
    """Labelled samples of a cache: single scans, whole sequences, or with task="aus" frames.

    `dataset[i]` is a dict:

        images   f32 (T, M, V, 3, S, S), T frames, M modalities, V views; 0…1; `background` without surface or image
        present  bool (T, M), whether the frame has the modality
        cameras  f32 (V, 2), yaw and pitch of the views in radians
        label    i64 (), the index in `classes`, -1 = none; for several labels at once i8 (C,): 1, 0, -1 = unknown
        index    i64 (), i

    With `reference`, frame 0 is the reference, and has_reference bool () says whether it exists, else frame 0 is to be ignored.
    It works in a `DataLoader` with any number of workers, which read whole
    batches at once, and can be pickled. Each image is compared with its checksum.
    """

    def __init__(
        self, cache: Cache | Path | str, *, size_px: int | None = None, labelled: bool = True, **options: Any
    ) -> None:
        """
        Args:
            size_px: side of the images; None: that of the cache.
            labelled: False: also samples without a label.
            options: of `python -m train fit`, with `_`: task, classes, modalities, views, background, where, frames, sampling,
                window and reference.
        Raises:
            CacheError: no finished cache. FacetError: an option that is unknown or does not fit the cache.
        """
        self._options = Options(**read_values(options, _OPTIONS))
        self._source: tuple[int, StoredImages] | None = None
        check_options(self._options)
        if self._options.background == "mean":
            raise FacetError("background mean: is of a tower, which a dataset does not know; give R,G,B")
        opened = cache if isinstance(cache, Cache) else open_cache(cache)
        self.cache = resolve_views(opened, self._options.views)
        check_sequences(self.cache, self._options)
        self.size_px = size_px or self.cache.info.settings.size_px
        self.task = self._options.task or "classes"
        kind = find_task(self.task)
        known = kind.known_classes(self.cache.info)
        self.classes = choose_classes(self.cache, self._options.classes or (), self.task) if labelled else known
        chosen = dataclasses.replace(self._options, task=self.task, classes=self.classes)
        everything = dataclasses.replace(chosen, modalities=self.cache.info.settings.modalities)
        rows = find_rows_in_use(self._select(everything, labelled=labelled))
        self.modalities, notes = choose_modalities(self.cache, self._options.modalities or (), rows)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        self._set_items(self._select(dataclasses.replace(chosen, modalities=self.modalities), labelled=labelled))
        self.num_frames = choose_frames(self.items, self._options.frames or 0)

    def _select(self, options: Options, *, labelled: bool) -> list[Item]:
        kind = find_task(options.task)
        items = keep_where(self.cache, gather_items(self.cache, options), options.where)
        items = [item for item in items if not labelled or kind.is_labelled(item, options.classes or ())]
        if not items:
            raise FacetError(f"{self.cache.path}: no valid sample is labelled {', '.join(options.classes or ())}")
        return items

    def _set_items(self, items: Sequence[Item]) -> None:
        kind = find_task(self.task)
        shape, dtype = ((len(items), len(self.classes)), np.int8) if kind.several else (len(items), np.int64)
        self.items, self.labels = tuple(items), np.full(shape, -1, dtype)
        known = [index for index, item in enumerate(items) if kind.is_labelled(item, self.classes)]
        if known:
            self.labels[known] = kind.label_items([items[index] for index in known], self.classes)

    @property
    def views(self) -> tuple[View, ...]:
        return self.cache.info.settings.views

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sample_id, or name of the sequence, of each sample."""
        return tuple(item.name for item in self.items)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return who each sample shows."""
        return tuple(item.subject for item in self.items)

    def fold(
        self, number: int = 0, *, protocol: str | None = None, folds: int | None = None, seed: int = 0
    ) -> tuple[CacheDataset, CacheDataset]:
        """Split by subjects, as `python -m train fit --fold` does: nobody is in both.

        Args:
            number: index of the fold. protocol: a name that `python -m train protocols` lists, or a file of folds; None: kfold.
            folds: how many; None: the protocol's number. seed: of the split.
        Returns:
            The samples to train on, and those to test on; the validation subjects of a file are in neither.
        Raises:
            FacetError: no such fold; the protocol does not fit the cache, or needs more subjects.
        """
        options = dataclasses.replace(
            self._options, protocol=protocol, folds=folds, seed=seed, modalities=self.modalities
        )
        split = split_folds(self.cache, options)
        for note in split.notes:
            warnings.warn(note, stacklevel=2)
        if not 0 <= number < len(split.folds.folds):
            raise FacetError(f"fold {number}: there are {len(split.folds.folds)}, numbered from 0")
        fold = split.folds.folds[number]
        parts = []
        for subjects, classes in (
            (fold.trained_subjects, fold.train_classes),
            (set(fold.test_subjects), fold.test_classes),
        ):
            part = copy.copy(self)
            part.classes = split.options.classes or ()
            part._set_items(keep_classes([item for item in split.train_items if item.subject in subjects], classes))
            parts.append(part)
        return parts[0], parts[1]

    def transform(self, device: torch.device, *, only_flip: bool = True) -> BatchTransform:
        """Return the transform from stored images to `images`."""
        plain = TowerConfig("", "", {}, self.size_px, (0.0,) * 3, (1.0,) * 3, "", False)
        plain = plain.with_background(self._options.background)
        dynamic = bool(self.cache.info.settings.dynamic)
        return BatchTransform(self.modalities, self.views, plain, device, dynamic=dynamic, only_flip=only_flip)

    @property
    def has_references(self) -> bool:
        return self._options.reference != "none"

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several samples, read at once; DataLoader calls it."""
        if self._source is None or self._source[0] != os.getpid():  # a forked worker must not share open files
            self._source = os.getpid(), StoredImages(self.cache, arrays=self.cache.open_arrays())
        transform = dataclasses.replace(self.transform(torch.device("cpu")), source=self._source[1])
        batch = [self.items[i] for i in indices]
        (raw,) = transform.stream(self.cache, [batch], self.num_frames, references=self.has_references)
        assert isinstance(raw, RawBatch)
        found = describe_batch(transform.prepare(raw), self.labels[list(indices)], np.asarray(indices))
        self.cache.check_unchanged()
        return [{name: tensor[k] for name, tensor in found.items()} for k in range(len(batch))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}


class CacheLoader(IterableDataset[dict[str, torch.Tensor]]):
    """Batches of a `CacheDataset` in the order in which `fit` trains: a function of seed and epoch, whatever the processes.

    Iterate it once per epoch: `for batch in loader`. It reads ahead in threads, so it needs no workers. A batch is a dict of
    the tensors of `CacheDataset`, stacked. In a `DataLoader(loader, batch_size=None, num_workers=N)` the batches are the same;
    there, call `set_epoch` before every epoch.
    """

    def __init__(
        self,
        dataset: CacheDataset,
        batch_size: int = 8,
        *,
        seed: int = 0,
        sampler: str = "each",
        shuffle: bool = True,
        augment: str = "none",
        device: torch.device | str = "cpu",
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """
        Args:
            batch_size: samples of all processes together; sizes of batches differ by one at most.
            sampler, augment: as the options of `fit`. An augmentation is the same in all views of a sample; flip mirrors the
                face: pixels, normals, and the yaw of `cameras`.
            shuffle: False: the order of the dataset.
            device: of the tensors.
            rank, num_ranks: this process, of how many that share every batch.
        Raises:
            FacetError: an unknown sampler or augmentation, or one of several labels at once.
        """
        if sampler not in ("each", "balanced") or augment not in AUGMENT:
            raise FacetError(
                f"CacheLoader: sampler {sampler!r}, augment {augment!r}; expected each or balanced, {AUGMENT}"
            )
        if sampler == "balanced" and dataset.labels.ndim > 1:
            raise FacetError("CacheLoader: sampler balanced is for one label per sample")
        if batch_size < 1 or not 0 <= rank < num_ranks <= batch_size:
            raise FacetError(f"CacheLoader: batch_size {batch_size}, rank {rank} of {num_ranks}")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self._sampler, self._shuffle, self._augment = sampler, shuffle, augment
        self._device, self._rank, self._num_ranks = torch.device(device), rank, num_ranks
        self._epoch = torch.tensor(-1).share_memory_()  # so that workers that stay alive see it

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; without it, the one after the last iteration."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        dataset, worker, epoch = self.dataset, get_worker_info(), int(self._epoch)
        if worker is None:
            epoch = max(epoch, 0)
            self._epoch.fill_(epoch + 1)
        elif epoch < 0:
            raise FacetError("CacheLoader: in workers, call set_epoch before every epoch; or iterate it without them")
        if self._shuffle:
            order = epoch_batches(dataset.labels, self._sampler, self.batch_size, self.seed, epoch)
        else:
            order = split_batches(np.arange(len(dataset)), self.batch_size)
        transform = dataset.transform(self._device, only_flip=self._augment == "flip")
        batches = stream_epoch(
            dataset.cache if worker is None else dataclasses.replace(dataset.cache),  # a worker opens its own files
            dataset.items,
            order,
            transform,
            dataset.num_frames,
            jitter=(self.seed, epoch) if self._augment != "none" else None,
            references=dataset.has_references,
            chosen=slice(None) if worker is None else slice(worker.id, None, worker.num_workers),
            part=lambda batch: rank_part(batch, self._rank, self._num_ranks),
        )
        for indices, raw in batches:
            assert isinstance(raw, RawBatch)
            parameters = None
            if self._augment != "none":
                numbers, repeats = ([getattr(i, name) for i in raw.items] for name in ("index", "repeat"))
                parameters = draw_parameters(self.seed, epoch, numbers, repeats)
            yield describe_batch(transform.prepare(raw, parameters), dataset.labels[indices], indices)
        dataset.cache.check_unchanged()


def describe_batch(batch: Batch, labels: np.ndarray, indices: np.ndarray) -> dict[str, torch.Tensor]:
    """Return a batch as CacheDataset describes it."""
    assert batch.images is not None
    device = batch.images.device
    found = {"images": batch.images, "present": batch.present, "cameras": batch.cameras}
    found["label"] = torch.from_numpy(np.asarray(labels)).to(device)
    if batch.has_reference is not None:
        found["has_reference"] = batch.has_reference
    found["index"] = torch.from_numpy(np.asarray(indices, np.int64)).to(device)
    return found
