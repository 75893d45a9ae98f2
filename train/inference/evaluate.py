"""`python -m train evaluate`, and the test of a training: score labelled items and write the files of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.attention_file import ATTENTION_FILE
from shared.cache import Cache, open_cache
from shared.runs import METRICS_JSON, find_best_epoch
from shared.store.storage import check_writable
from shared.text import TextEmbeddings
from train.config import RunConfig
from train.data.embeddings import Embeddings
from train.data.items import find_neutral
from train.inference.frame_votes import NO_VOTES, score_frame_votes
from train.inference.predictor import (
    build_transform,
    describe_decisions,
    find_prompts_of_run,
    predict_items,
    predict_uncentred,
)
from train.inference.score import score_and_write_attention
from train.inference.thresholds import read_thresholds
from train.model.facet import Facet
from train.model.factory import choose_device, load_run
from train.protocols.evaluation_items import find_tested, is_own_test
from train.protocols.folds import read_split
from train.reporting.report import print_result, write_report
from train.resolve import take_views
from train.runs.groups import score_groups
from train.runs.results import FoldResult, TestInfo
from train.runs.tested_cache import open_tested
from train.tasks.item import Item
from train.tasks.task import find_task


def evaluate(run: Path, cache_path: Path | None, *, device: str) -> int:
    """Test a run again on its own test subjects, or on every sample of another cache that has one of its classes.

    Raises:
        FacetError, CacheError: no finished run; a cache with other view settings; nothing to test on.
    """
    where = choose_device(device)
    config, model = load_run(run, where)
    recipe = config.recipe
    fold = read_split(run)
    opened = open_cache(cache_path) if cache_path else open_tested(config)
    cache = take_views(opened, config.render, recipe.modalities, whose=str(run))
    folder = run if is_own_test(cache, config) else run / f"on-{cache.name}"
    items = find_tested(cache, config, fold)
    check_writable(folder / METRICS_JSON)
    text = find_prompts_of_run(cache, config, model)
    num_train = len(fold.train_subjects)
    result = evaluate_items(
        folder, model, cache, items, config, num_train, read_thresholds(run, recipe), text=text,
        best_epoch=find_best_epoch(run),
    )  # fmt: skip
    print_result(folder, result)
    return 0


def evaluate_items(
    folder: Path,
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    config: RunConfig,
    num_train: int,
    thresholds: np.ndarray | None,
    embeddings: Embeddings | None = None,
    text: TextEmbeddings | None = None,
    *,
    best_epoch: int | None = None,
) -> FoldResult:
    """Score labelled items and write the files of a test into the folder.

    Args:
        thresholds: f32 (C,) of a task that has them. embeddings: of the items' images. text: the classes' prompts, if known.
        best_epoch: of a run with validation.
    """
    recipe, task = config.recipe, find_task(config.recipe.task)
    neutral = find_neutral(cache, recipe)
    has_frames = recipe.frames > 1 and not task.several
    scores = score_and_write_attention(
        folder / ATTENTION_FILE, model, cache, items, build_transform(cache, config, model, embeddings), config, text,
        neutral=neutral, each_frame=has_frames and recipe.centre_scores == "none",
    )  # fmt: skip
    predictions = predict_items(scores, thresholds, recipe)
    no_votes = [NO_VOTES] * (has_frames and recipe.centre_scores != "none")
    for line in (*describe_decisions(cache, items, recipe, neutral), *no_votes):
        print(f"note: {line}")
    info = replace(describe_test(cache, config, model, items, num_train), best_epoch=best_epoch)
    if recipe.centre_scores != "none":
        raw = task.test(predict_uncentred(scores, recipe).rows, recipe.classes)["accuracy"]
        info = replace(info, accuracy_uncentred=raw)
        print(f"accuracy with --centre-scores none: {raw:.3f}")
    groups = score_groups(cache, items, predictions.rows, task, recipe.classes)
    votes = [] if scores.frames is None else score_frame_votes(scores.frames, predictions.rows, task, recipe.classes)
    result = FoldResult(
        folder.name, info, task.test(predictions.rows, recipe.classes), tuple(groups), frame_votes=tuple(votes)
    )
    more: dict[str, Any] = {
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "view_weights": scores.view_weights,
        "face_cosine": scores.face_cosine,
    }
    write_report(folder, result, predictions, more)
    return result


def describe_test(cache: Cache, config: RunConfig, model: Facet, items: Sequence[Item], num_train: int) -> TestInfo:
    """Return what metrics.json says of a test; num_train: number of training subjects."""
    recipe = config.recipe
    return TestInfo(
        task=find_task(recipe.task).name,
        class_names=recipe.classes,
        dataset=cache.info.dataset,
        licence=cache.info.licence,
        model=config.tower.name,
        pretrained=config.tower.pretrained,
        random_weights=config.is_random,
        shuffled_labels=recipe.shuffle_labels,
        centred_scores=recipe.centre_scores,
        num_train_subjects=num_train,
        num_test_subjects=len({item.subject for item in items}),
        num_parameters=sum(p.numel() for p in model.parameters()),
    )
