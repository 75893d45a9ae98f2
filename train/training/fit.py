"""`python -m train fit`: one fold of an experiment, from the cache to a tested run."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.errors import FacetError, count
from shared.runs import THRESHOLDS_JSON, find_best_epoch, record_hashes
from shared.store.lock import hold_lock
from shared.store.storage import make_folder
from train.config import RunConfig, write_config
from train.data.embeddings import Embeddings
from train.data.preload import preload_images
from train.data.prompts import class_texts
from train.data.stream import ImageSource, StoredImages
from train.data.transfer import allocator
from train.experiment import Experiment, write_options
from train.inference.evaluate import evaluate_items
from train.inference.predictor import build_transform
from train.inference.thresholds import fit_thresholds, start_class_bias, write_thresholds
from train.model.facet import Facet
from train.model.factory import build_facet, choose_device
from train.model.image_tower import build_tower, load_tower
from train.model.initial import copy_weights, load_initial_model
from train.model.weights import load_weights, write_weights
from train.options import Recipe
from train.protocols.folds import Fold, write_split
from train.reporting.report import print_result
from train.runs.results import FoldResult
from train.tasks.item import Item
from train.tasks.task import find_task
from train.trackers.open import check_trackers, list_settings, open_trackers, show_result
from train.training.build_embeddings import open_embeddings
from train.training.checkpoint import find_checkpoints, sweep_partials
from train.training.distributed import ALONE, Ranks
from train.training.identity import check_same, check_towers_match, describe_run, is_finished, read_earlier
from train.training.loop import Monitoring, Stopped, TrainingSet, train
from train.training.optimizer import describe_rates
from train.training.timing import count_seconds
from train.training.validation import Validation

LOCK = ".lock"


def fit(
    run: Path, experiment: Experiment, number: int, *, device: str, quiet: bool = False, ranks: Ranks = ALONE
) -> int:
    """Train on a fold's training subjects and test on the others; continue where an interrupted run stopped.

    Args:
        number: index of the fold.
        device: instead of the experiment's.
        quiet: print nothing but warnings.
        ranks: processes that train this run together.
    Returns:
        0; 128 + the signal's number after SIGINT or SIGTERM (a checkpoint is written).
    Raises:
        FacetError, CacheError: anything the user can correct.
    """
    where = choose_device(ranks.choose_device(device))
    recipe = dataclasses.replace(experiment.recipe, fold=number)
    experiment = dataclasses.replace(experiment, recipe=recipe)
    fold, how = experiment.fold(number), experiment.run
    old, found = read_earlier(run), experiment.find_initial(fold)
    config = dataclasses.replace(describe_run(experiment, old.tower if old else None), initial=found and found[1])
    if old:
        check_same(run, old, config, fold)
        config = dataclasses.replace(config, initial=old.initial)
    if is_finished(run, fold, recipe):
        if not quiet:
            again = f"; `python -m train evaluate {run}` tests it again" if fold.test_subjects else ""
            print(f"{run}: this run is finished already{again}")
        return 0
    check_trackers(how.log if ranks.is_first else ())
    ranks.largest(0)  # wait until all processes have read the folder, before the first one writes there
    loaded = None
    initial: tuple[RunConfig, Facet] | None = None
    if not (old and find_checkpoints(run)):  # a checkpoint holds all weights
        with ranks.first():  # it may download them
            if found is None:
                loaded, tower_config = load_tower(recipe.model, recipe.pretrained, seed=recipe.seed)
            else:
                initial_config, initial_model, loaded, tower_config = load_initial_model(found[0])
                initial = initial_config, initial_model
        check_towers_match(experiment.text, tower_config, experiment.train, how.prompts, config.initial)
        config = dataclasses.replace(config, tower=tower_config.with_background(recipe.background))
    with ExitStack() as stack:
        if ranks.is_first:
            refusal = FacetError(f"{run}: another process is training this run; wait until it has ended")
            make_folder(run, like=experiment.train.path)
            stack.enter_context(hold_lock(run / LOCK, refusal))
            sweep_partials(run)
            stack.enter_context(count_seconds(run))
        if loaded is not None and ranks.is_first:
            write_split(run, fold)
            write_config(run, config)
            write_options(run, experiment, number)
        trackers = stack.enter_context(open_trackers(run, how.log if ranks.is_first else (), list_settings(config)))
        tower = build_tower(config.tower.config) if loaded is None else loaded
        tables: tuple[Embeddings | None, Embeddings | None] = (None, None)
        if experiment.embeddings:
            with ranks.first():
                tables = open_embeddings(experiment.embeddings, experiment, config, loaded, where)
        source = None
        if not experiment.embeddings:
            items, modalities = experiment.items_of(fold)[0], config.recipe.modalities
            source = preload_images(experiment.train, items, modalities, how.preload, where, allocate=allocator(where))
        return _fit(
            run, experiment, fold, config, tower, where, quiet, tables, source, initial=initial,
            checkpoint_every=how.checkpoint_every, keep_checkpoints=how.keep_checkpoints, ranks=ranks,
            monitoring=Monitoring(trackers, how.profile),
        )  # fmt: skip


def _fit(
    run: Path,
    experiment: Experiment,
    fold: Fold,
    config: RunConfig,
    tower: torch.nn.Module,
    device: torch.device,
    quiet: bool,
    tables: tuple[Embeddings | None, Embeddings | None],
    source: ImageSource | None,
    *,
    initial: tuple[RunConfig, Facet] | None,
    ranks: Ranks,
    monitoring: Monitoring,
    **options: Any,
) -> int:
    recipe, cache = config.recipe, experiment.train
    train_items, test_items = experiment.items_of(fold)
    text = experiment.text
    model = build_facet(config, device, tower, class_texts(text, config.render.views), text.logit_scale)
    if initial is not None and config.initial is not None:
        copied = (*config.initial.copied, *copy_weights(model, recipe, initial[1], initial[0].recipe))
        config = dataclasses.replace(config, initial=dataclasses.replace(config.initial, copied=copied))
        if ranks.is_first:
            write_config(run, config)
    if not quiet:
        _announce(experiment, config, fold, len(train_items), len(test_items), model, device)
    labels = label_training(train_items, recipe)
    source = source or StoredImages(cache, allocate=allocator(device))  # its buffers are reused in every epoch
    transform = dataclasses.replace(build_transform(cache, config, model, tables[0]), source=source)
    if find_task(recipe.task).several and not find_checkpoints(run):
        start_class_bias(model, cache, train_items, labels, transform, recipe)
    training = TrainingSet(train_items, labels)
    validation = None
    if fold.validation_subjects:  # not of preloaded images, which are those of training
        own = dataclasses.replace(transform, source=StoredImages(cache, allocate=allocator(device)))
        validation = Validation(cache, experiment.validation_items(fold), own, config)
    for tracker in () if quiet else monitoring.trackers:
        print(f"{tracker.option}: {tracker.describe()}")
    try:
        train(
            run,
            model,
            cache,
            training,
            transform,
            recipe,
            ranks=ranks,
            monitoring=monitoring,
            validation=validation,
            **options,
        )
    except Stopped as stopped:
        if ranks.is_first:
            name = signal.Signals(stopped.number).name
            print(
                f"\nstopped by {name} after step {stopped.step}: a checkpoint is written; run the same command again to "
                "continue",
                file=sys.stderr,
            )
        return 128 + stopped.number
    ranks.leave()
    if not ranks.is_first:
        return 0
    if validation is not None and validation.best_epoch and not quiet:
        print(validation.describe())
    write_weights(run, model)
    load_weights(run, model)  # test the weights as they were written
    result = evaluate_fold(run, model, experiment, fold, config, tables)
    show_result(monitoring.trackers, run, result)
    if result is not None and not quiet:
        print_result(run, result)
    elif result is None:
        print(
            f"trained on all {len(fold.train_subjects)} subjects, so there is nobody to test on, and no scores: {run}"
        )
    return 0


def label_training(items: Sequence[Item], recipe: Recipe) -> np.ndarray:
    """Return the training labels (see `Task.label_items`), shuffled with --shuffle-labels."""
    labels = find_task(recipe.task).label_items(items, recipe.classes)
    if recipe.shuffle_labels:
        labels = np.random.default_rng([recipe.seed, 0, 2]).permutation(labels)  # apart from train/data/order.py
    return labels


def evaluate_fold(
    run: Path,
    model: Facet,
    experiment: Experiment,
    fold: Fold,
    config: RunConfig,
    tables: tuple[Embeddings | None, Embeddings | None],
) -> FoldResult | None:
    """Test a trained model on the fold's test subjects and write the files of the test; None if it tests nobody.

    Args:
        tables: embeddings of the training and the test cache; None: read images.
    """
    train_items, test_items = experiment.items_of(fold)
    thresholds = None
    if find_task(config.recipe.task).has_thresholds:
        transform = build_transform(experiment.train, config, model, tables[0])
        thresholds = fit_thresholds(model, experiment.train, train_items, transform, config)
        write_thresholds(run, thresholds)
        record_hashes(run, (THRESHOLDS_JSON,))
    if not fold.test_subjects:
        return None
    num_train = len(fold.train_subjects)
    return evaluate_items(
        run, model, experiment.test, test_items, config, num_train, thresholds, tables[1], experiment.text,
        best_epoch=find_best_epoch(run),
    )  # fmt: skip


def _announce(
    experiment: Experiment,
    config: RunConfig,
    fold: Fold,
    num_train: int,
    num_test: int,
    model: torch.nn.Module,
    device: torch.device,
) -> None:
    recipe = config.recipe
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    train = f"{num_train} training samples of {count(len(fold.trained_subjects), 'subject')}"
    if fold.validation_subjects:
        train += f", {len(experiment.validation_items(fold))} validation samples of {len(fold.validation_subjects)}"
    test = f"{num_test} test samples of {count(len(fold.test_subjects), 'other')}" if fold.test_subjects else "no test"
    print(f"{experiment.folds.dataset}, {fold.name}: {train}, {test}; classes {', '.join(recipe.classes)}")
    images = f"{', '.join(recipe.modalities)} at views {config.render.views_text()}"
    mark = ", random weights" if config.is_random else ""
    print(f"{config.tower.name}, {images}, {millions:.1f} M parameters, on {device}{mark}")
    if config.initial:
        print(*(f"--init-from {config.initial.name}: {line}" for line in config.initial.copied), sep="\n")
    print(describe_rates(recipe))
