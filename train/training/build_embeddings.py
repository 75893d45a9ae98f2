"""`python -m train embed`: compute the features of a frozen image tower for a whole cache, once for all trainings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from shared.cache import Cache, open_cache
from shared.command_line import print_next
from shared.errors import FacetError
from shared.schema import SHARD_ROWS
from shared.store.lock import hold_lock
from shared.store.storage import make_folder
from train.config import RunConfig, TowerConfig
from train.data.batch_transform import BatchTransform
from train.data.embeddings import Embeddings, EmbeddingSet, find_embeddings, read_embeddings
from train.data.items import choose_modalities
from train.data.stream import stream_batches
from train.experiment import Experiment
from train.model.facet import run_tower
from train.model.factory import choose_device
from train.model.image_tower import load_tower
from train.options import Options
from train.tasks.item import Item
from train.training.checkpoint import sweep_partials
from train.training.progress import ProgressLines

ROWS_A_BATCH = 32  # the tower gets one view of them at a time


def embed(
    cache_path: Path,
    out: Path,
    *,
    model: str,
    pretrained: str,
    modalities: Sequence[str],
    seed: int,
    device: str,
    mirrored: bool,
    background: str = "black",
) -> int:
    """Compute the missing embeddings of a cache, in `out`.

    Args:
        model, pretrained: image tower; empty: the model that encoded the cache's prompts.
        seed: seed of random weights. background: as the option of `fit`.
    Returns:
        0.
    Raises:
        FacetError, CacheError: an option, the cache or the weights cannot be used.
    """
    Options(background=background)  # checks it
    where = choose_device(device)
    cache = open_cache(cache_path)
    chosen, _ = choose_modalities(cache, modalities or cache.info.settings.modalities, ())
    if not (model and pretrained):
        text = cache.read_text(model or None)
        model, pretrained = model or text.model, pretrained or text.pretrained
    tower, config = load_tower(model, pretrained, seed=seed)
    config = config.with_background(background)
    num = build_embeddings(out, cache, tower, config, chosen, where, mirrored=mirrored)
    sets = [find_embeddings(out, cache, config, modality) for modality in chosen]
    print(f"{num} new images embedded with {config.name}" + (" (random weights)" if config.random_weights else ""))
    for modality, one in zip(chosen, sets, strict=True):
        print(f"{modality:<9} {one.folder}: {one.shape[0]} rows, {one.shape[1]} views, {one.shape[2]} features each")
    words = ["--tune", "frozen", "--embeddings", out, *["--background", background] * (background != "black")]
    print_next("train", "crossval", "--cache", cache_path, *words, "--out", out.parent / "frozen")
    return 0


def open_embeddings(
    root: Path, experiment: Experiment, config: RunConfig, tower: nn.Module | None, device: torch.device
) -> tuple[Embeddings, Embeddings]:
    """Load the embeddings for training and for test; the same object if both use one cache.

    Args:
        tower: computes missing embeddings; None: none may be missing.
    Raises:
        FacetError: a file is missing or damaged, and no tower is given.
    """
    mirrored = config.recipe.augment != "none"
    one_cache = experiment.test is experiment.train
    found = []
    for cache, items, flips in (
        (experiment.train, (*experiment.train_items, *(experiment.test_items if one_cache else ())), mirrored),
        (experiment.test, experiment.test_items, False),
    )[: 1 if one_cache else 2]:
        modalities = config.recipe.modalities
        if tower is not None:
            build_embeddings(root, cache, tower, config.tower, modalities, device, mirrored=flips)
        found.append(read_embeddings(root, cache, config.tower, modalities, items, device, mirrored=flips))
    return found[0], found[-1]


def build_embeddings(
    root: Path,
    cache: Cache,
    tower: nn.Module,
    config: TowerConfig,
    modalities: Sequence[str],
    device: torch.device,
    *,
    mirrored: bool = True,
) -> int:
    """Embed every valid image that has no embedding yet, or whose file is damaged. Write each finished shard.

    All views of the cache are embedded, whichever were chosen.

    Args:
        tower: left in evaluation mode on the device.
        mirrored: also embed the mirrored images, for the flip.
    Returns:
        The number of embedded images.
    """
    cache = cache.with_all_views()
    tower.eval().to(device)
    make_folder(root, like=cache.path)
    with hold_lock(root / ".lock"):  # another process may be computing the same ones
        for modality in modalities:
            sweep_partials(find_embeddings(root, cache, config, modality).folder)
        todo = {m: _find_missing(find_embeddings(root, cache, config, m), mirrored) for m in modalities}
        num_images = sum(
            sum(cache.samples[row].valid and cache.samples[row].has(modality) for row in _rows(cache, shard))
            * len(copies)
            * len(cache.info.settings.views)
            for modality, shards in todo.items()
            for shard, copies in shards.items()
        )
        lines, done = ProgressLines("embed", 0, num_images, "image", silent=False), 0
        with tqdm(total=num_images, desc="embed", unit="image", dynamic_ncols=True, leave=None, disable=None) as bar:

            def advance(num: int) -> None:
                nonlocal done
                done += num
                bar.update(num)
                lines.report(done, 0, str)

            for modality, shards in todo.items():
                one = find_embeddings(root, cache, config, modality)
                _embed_modality(one, shards, cache, tower, config, modality, device, advance)
    return num_images


def _find_missing(one: EmbeddingSet, mirrored: bool) -> dict[int, list[bool]]:
    """Return shard → the missing copies (mirrored or not)."""
    missing: dict[int, list[bool]] = {}
    for shard in range(one.num_shards):
        for copy in (False, True) if mirrored else (False,):
            try:
                if one.read(shard, copy) is not None:
                    continue
            except FacetError as error:
                print(f"{str(error).partition(';')[0]}; computing it again", file=sys.stderr)
            missing.setdefault(shard, []).append(copy)
    return missing


def _rows(cache: Cache, shard: int) -> range:
    return range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, cache.info.num_samples))


@torch.inference_mode()
def _embed_modality(
    one: EmbeddingSet,
    shards: dict[int, list[bool]],
    cache: Cache,
    tower: nn.Module,
    config: TowerConfig,
    modality: str,
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    settings = cache.info.settings
    transform = BatchTransform((modality,), settings.views, config, device, dynamic=bool(settings.dynamic))
    batches = []
    for shard in shards:  # no batch spans two shards
        rows = [row for row in _rows(cache, shard) if cache.samples[row].valid and cache.samples[row].has(modality)]
        batches += [
            [_item(cache, row) for row in rows[i : i + ROWS_A_BATCH]] for i in range(0, len(rows), ROWS_A_BATCH)
        ]
    stream = stream_batches(cache, batches, (modality,), 1)
    for shard, copies in shards.items():
        first = shard * SHARD_ROWS
        shape = (one.num_rows(shard), *one.shape[1:])
        features = {copy: np.zeros(shape, np.float32) for copy in copies}
        num_left = sum(cache.samples[row].valid and cache.samples[row].has(modality) for row in _rows(cache, shard))
        while num_left:
            raw = next(stream)
            rows = [item.rows[0] - first for item in raw.items]
            for copy in copies:
                flipped = torch.full((len(raw.items),), copy, device=device)
                images = transform.prepare_images(raw, flipped)[:, 0, 0]
                for view in range(shape[1]):  # one by one: rounding does not depend on the other views
                    features[copy][rows, view] = run_tower(tower, images[:, view]).cpu().numpy()
                advance(images.shape[0] * images.shape[1])
            num_left -= len(rows)
        cache.check_unchanged()
        for copy in copies:
            one.write(shard, copy, features[copy])


def _item(cache: Cache, row: int) -> Item:
    sample = cache.samples[row]
    return Item(sample.sample_id, sample.subject, "", (row,), row)
