"""`python -m train fit`: from a cache to a tested run."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.schema import fingerprint
from shared.text import TextEmbeddings
from shared.weights import hash_arrays
from train.checkpoint import CHECKPOINT, load_weights, write_weights
from train.config import CONFIG_JSON, Recipe, RunConfig, TowerConfig, read_config, write_config
from train.encoder import RANDOM, build_tower, load_tower
from train.evaluate import build_facet, choose_device, evaluate_items, label_items, print_result
from train.loop import Stopped, TrainingSet, train
from train.prepare import Preparer
from train.protocols import SPLIT_JSON, Split, split_by_fold, split_by_subjects, write_split
from train.report import METRICS_JSON
from train.stream import Item, choose_classes, choose_frames, choose_modalities, find_items

PRETRAINED_TOWER_RATE = 0.01  # of --lr: pretrained features are to be moved, not overwritten


def fit(run: Path, cache_path: Path, recipe: Recipe, *, device: str, checkpoint_every: int) -> int:
    """Trains on some subjects, tests on others; goes on where an interrupted run of the same settings stopped.

    Returns:
        0; 128 + the signal's number after SIGINT or SIGTERM (a checkpoint is written).
    Raises:
        FacetError, CacheError: anything the user can mend.
    """
    where = choose_device(device)
    cache = open_cache(cache_path)
    text = cache.read_text(recipe.model or None)
    recipe, items = resolve_recipe(cache, text, recipe)
    text = text.select(recipe.classes)
    split = _split(items, recipe)
    train_items = [item for item in items if item.subject in set(split.train_subjects)]
    test_items = [item for item in items if item.subject in set(split.test_subjects)]
    _check_classes(train_items, test_items, recipe.classes)

    old = _read_earlier(run)
    tower_config = old.tower if old else None
    config = _describe(cache, text, recipe, tower_config)
    if old and (names := config.differences(old)):
        raise FacetError(
            f"{run}: a run with other settings is here (different: {', '.join(names)}); choose another --out, "
            "or give the same settings to go on with it"
        )
    if (run / METRICS_JSON).is_file():
        print(f"{run}: this run is finished; `python -m train evaluate {run}` tests it again")
        return 0
    if tower_config is not None and (run / CHECKPOINT).is_file():
        tower = build_tower(tower_config.config)  # the checkpoint holds its weights
    else:
        tower, tower_config = load_tower(recipe.model, recipe.pretrained, seed=recipe.seed)
        _check_towers_match(cache, text, tower_config)
        config = dataclasses.replace(config, tower=tower_config)
        write_split(run, split)
        write_config(run, config)
    model = build_facet(config, where, tower, mean_prompts(text), text.logit_scale)
    _announce(cache, config, split, len(train_items), len(test_items), model, where)

    labels = label_items(train_items, recipe.classes)
    if recipe.shuffle_labels >= 0:
        labels = np.random.default_rng(recipe.shuffle_labels).permutation(labels)
    preparer = Preparer(recipe.modalities, cache.info.settings.views, config.tower, where)
    training = TrainingSet(train_items, labels)
    try:
        train(run, model, cache, training, preparer, recipe, checkpoint_every=checkpoint_every)
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(
            f"\nstopped by {name} after step {stopped.step}: a checkpoint is written; run the same command again to go on",
            file=sys.stderr,
        )
        return 128 + stopped.number
    write_weights(run, model)
    load_weights(run, model)  # what is tested is what was written
    metrics = evaluate_items(run, model, cache, test_items, preparer, config, len(split.train_subjects))
    print_result(run, metrics, config, split.test_subjects)
    return 0


def resolve_recipe(cache: Cache, text: TextEmbeddings, recipe: Recipe) -> tuple[Recipe, list[Item]]:
    """Fills in every default that the cache decides; also gives the labelled items the recipe is about."""
    classes = choose_classes(cache, recipe.classes)
    modalities = choose_modalities(cache, recipe.modalities, classes)
    items = [item for item in find_items(cache, modalities) if item.class_name in classes]
    if not items:
        raise FacetError(f"{cache.path}: no valid sample is labelled {', '.join(classes)}; see --classes")
    pretrained = recipe.pretrained or text.pretrained
    return dataclasses.replace(
        recipe,
        model=recipe.model or text.model,
        pretrained=pretrained,
        classes=classes,
        modalities=modalities,
        frames=choose_frames(items, recipe.frames),
        tower_lr=recipe.tower_lr or recipe.lr * (1.0 if pretrained == RANDOM else PRETRAINED_TOWER_RATE),
    ), items


def mean_prompts(text: TextEmbeddings) -> np.ndarray:
    """f32 (C, d): the mean over the prompts each class has. Its dot product with a unit vector is the mean cosine."""
    mask = text.mask[..., None]
    mean: np.ndarray = (text.embeddings * mask).sum(1) / mask.sum(1)
    return mean.astype(np.float32)


def _split(items: Sequence[Item], recipe: Recipe) -> Split:
    subjects = [item.subject for item in items]
    if recipe.test_subjects:
        return split_by_subjects(subjects, recipe.test_subjects)
    return split_by_fold(subjects, recipe.folds, recipe.fold, recipe.seed)


def _check_classes(train_items: Sequence[Item], test_items: Sequence[Item], classes: Sequence[str]) -> None:
    """A class nobody shows cannot be learned; one that only the test subjects lack is no error (leave one subject out)."""
    absent = [name for name in classes if all(item.class_name != name for item in train_items)]
    if absent:
        raise FacetError(f"no training sample shows {', '.join(absent)}; choose other --classes or another --fold")
    absent = [name for name in classes if all(item.class_name != name for item in test_items)]
    if absent:
        print(f"note: no test sample shows {', '.join(absent)}; balanced scores leave it out", file=sys.stderr)


def _read_earlier(run: Path) -> RunConfig | None:
    if (run / CONFIG_JSON).is_file():
        return read_config(run)
    if run.is_dir() and any(p.name != SPLIT_JSON and not p.name.startswith(".") for p in run.iterdir()):
        raise FacetError(f"{run}: not empty, and no run (no {CONFIG_JSON}); choose another --out")
    return None


def _describe(cache: Cache, text: TextEmbeddings, recipe: Recipe, tower: TowerConfig | None) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        tower=tower or TowerConfig(recipe.model, recipe.pretrained, {}, 0, (), (), "", recipe.pretrained == RANDOM),
        dataset=cache.info.dataset,
        licence=cache.info.licence,
        content_hash=cache.info.content_hash,
        render=cache.info.settings,
        text_hash=fingerprint([hash_arrays({"mean": mean_prompts(text)}), text.logit_scale, text.weights_hash]),
        text_dim=text.embeddings.shape[2],
        random_text=text.random_weights,
        cache=str(cache.path.resolve()),
    )


def _check_towers_match(cache: Cache, text: TextEmbeddings, tower: TowerConfig) -> None:
    if tower.random_weights or tower.weights_hash == text.image_tower_hash:
        return
    loaded = f"--model {tower.name} --pretrained {tower.pretrained}"
    raise FacetError(
        f"{cache.path}: its prompts were encoded by {text.model} with weights {text.pretrained!r}, which do not belong to the "
        f"image tower that was loaded ({loaded}); run `python -m preprocess prompts --cache {cache.path} {loaded}`"
    )


def _announce(
    cache: Cache,
    config: RunConfig,
    split: Split,
    num_train: int,
    num_test: int,
    model: torch.nn.Module,
    device: torch.device,
) -> None:
    recipe = config.recipe
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    people = f"{num_train} training samples of {len(split.train_subjects)} subjects"
    others = f"{num_test} test samples of {len(split.test_subjects)} others"
    print(f"{cache.info.dataset}: {people}, {others}; classes {', '.join(recipe.classes)}")
    looks = f"{', '.join(recipe.modalities)} from {len(config.render.views)} views"
    mark = ", random weights" if config.is_random else ""
    print(f"{config.tower.name}, {looks}, {millions:.1f} M parameters, on {device}{mark}")
