"""`python -m train predict --zero-shot`: the untrained model, which knows its classes by their prompts alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shared.cache import Cache, open_cache
from shared.command_line import print_next
from shared.errors import CacheError, FacetError, name_some
from shared.labels import is_action_unit
from shared.pairs import group_pairs
from shared.runs import CONFIG_JSON, METRICS_JSON, PREDICTIONS_CSV, Prediction, Predictions, write_predictions
from shared.schema import canonical_json
from shared.store.storage import make_folder, write_file
from shared.text import TextEmbeddings
from train.config import RunConfig, TowerConfig
from train.data.items import check_neutral, choose_frames, find_neutral, gather_items, is_labelled
from train.data.prompts import class_texts
from train.inference.adapt import adapt_batch_norm
from train.inference.centre import choose_centring
from train.inference.evaluate import describe_test
from train.inference.predictor import (
    build_transform,
    choose_usable,
    describe_decisions,
    find_lacking,
    predict_items,
    predict_uncentred,
)
from train.inference.score import Scores, score_items
from train.model.facet import Facet
from train.model.factory import build_facet, choose_device
from train.model.image_tower import load_tower
from train.options import Options, Recipe, RunOptions
from train.protocols.evaluation_items import map_classes
from train.protocols.named import DEFAULT_PROTOCOL
from train.protocols.selection import prefix_subject
from train.protocols.trained_subjects import list_tower_subjects
from train.reporting.report import describe_result, print_scores
from train.resolve import check_reference, find_text, resolve_model, resolve_views
from train.runs.results import FoldResult, TestInfo
from train.studies.ablation.variants import OBVIOUS, Variant, change_options
from train.studies.compare.resampling import draw_resamples, percentile_interval
from train.studies.compare.scores import SubjectResults, resample_score
from train.tasks.item import Item
from train.tasks.task import find_task
from train.training.identity import check_towers_match

ZERO_SHOT = Variant("zero-shot", OBVIOUS["zero-shot"].options)


def predict_zero_shot(
    options: Options, run: RunOptions, out: Path, *, adapt: bool = True, centre: str | None = None
) -> int:
    """Write a probability per class for every usable scan or sequence of a cache, by CLIP zero-shot over averaged views.

    The model is that of `ablate --variants zero-shot`, untrained. Samples with a label among the classes are also scored.

    Args:
        options: model, weights, modalities, views, background and classes; nothing else is used.
        run: cache, prompts and device.
        out: folder of predictions.csv and, where labels are known, metrics.json.
        adapt: estimate the batch statistics of the image tower on this cache's images first, see `adapt_batch_norm`.
        centre: none, neutral, subject or all, see `centre_logits`; None: by the data set, see `choose_centring`.
    Raises:
        FacetError, CacheError: anything the user can correct.
    """
    if out.is_file() or (out / CONFIG_JSON).is_file():
        raise FacetError(f"--out {out}: is a file, or holds a trained run; choose a new folder")
    assert run.cache is not None
    cache = resolve_views(open_cache(run.cache), options.views)
    text = find_text(options, options.classes, [cache], run.prompts)
    tower, tower_config = load_tower(
        options.model or text.model, options.pretrained or text.pretrained, seed=options.seed
    )
    check_towers_match(text, tower_config, cache, run.prompts)
    found = score_zero_shot(
        options, cache, text, tower, tower_config, choose_device(run.device), adapt=adapt, centre=centre
    )
    num_rows = len(found.predictions.rows)
    scored = f"{len(found.tested)} of {num_rows} samples have a label among the classes, and are scored"
    for note in (*found.notes, scored):
        print(f"note: {note}", file=sys.stderr)
    if found.adapted:
        print(
            "batch statistics of the image tower: those of this cache's images, without labels (--no-adapt: as trained)"
        )
    make_folder(out, like=cache.path)
    recipe, predictions, tested = found.config.recipe, found.predictions, found.tested
    (out / METRICS_JSON).unlink(missing_ok=True)  # of an earlier prediction
    write_predictions(out / PREDICTIONS_CSV, predictions, {"lacks": found.lacks}, like=cache.path)
    if tested:
        info = describe_test(cache, found.config, found.model, tested, 0)
        raw = find_task(info.task).test(_keep_labelled(predict_uncentred(found.scores, recipe)), recipe.classes)
        info = replace(info, accuracy_uncentred=raw["accuracy"])
        result = _test(out.name, predictions, info)
        write_file(out / METRICS_JSON, canonical_json(describe_result(result, predictions)).encode(), like=cache.path)
        print_scores(result, predictions)
        print("zero-shot: nothing was trained; the interval is over subjects (bootstrap)")
        if recipe.centre_scores != "none":
            print(f"accuracy with --centre-scores none: {raw['accuracy']:.3f}")
        print(f"all scores        {out / METRICS_JSON}")
    print(f"every prediction  {out / PREDICTIONS_CSV}: {num_rows} among {', '.join(recipe.classes)}")
    words = ("--cache", cache.path, "--out", "runs/first")
    print_next("train", "fit", *words, about="train on some people, test on others")
    return 0


@dataclass(frozen=True)
class ZeroShotScores:
    """Predictions of an untrained model for a cache. lacks: as `find_lacking`. tested: items with a label among the classes.
    adapted: whether batch statistics were estimated. notes: for the user."""

    config: RunConfig
    model: Facet
    scores: Scores
    predictions: Predictions
    lacks: Sequence[str]
    tested: Sequence[Item]
    adapted: bool
    notes: Sequence[str]


def score_zero_shot(
    options: Options,
    cache: Cache,
    text: TextEmbeddings,
    tower: nn.Module,
    tower_config: TowerConfig,
    device: torch.device,
    *,
    adapt: bool,
    centre: str | None = None,
) -> ZeroShotScores:
    """Score every usable sample of a cache by an image tower and the prompts of classes.

    Args:
        options, adapt, centre: as in `predict_zero_shot`. text: prompts of the classes, or of more.
        tower: with `adapt`, its batch statistics change.
    Raises:
        FacetError, CacheError: fewer than two classes, or no usable sample.
    """
    options = replace(options, centre_scores=centre or choose_centring(cache.info.dataset))
    recipe, notes = _resolve_recipe(options, cache, text)
    check_reference(recipe, recipe.classes)
    neutral = find_neutral(cache, recipe)
    check_neutral(cache, recipe, neutral)
    text = text.select(recipe.classes)
    config = RunConfig(
        recipe=recipe,
        tower=tower_config.with_background(recipe.background),
        dataset=cache.info.dataset,
        licence=cache.info.licence,
        content_hash=cache.info.content_hash,
        render=cache.info.settings,
        text_hash=text.weights_hash,
        text_dim=text.embeddings.shape[2],
        random_text=text.random_weights,
        text_per_view=bool(text.views),
        cache=str(cache.path),
    )
    model = build_facet(config, device, tower, class_texts(text, config.render.views), text.logit_scale)
    items = map_classes(gather_items(cache, recipe), cache, config)
    if not items:
        raise CacheError(f"{cache.path}: no valid sample with {' or '.join(recipe.modalities)}")
    tested = [item for item in items if is_labelled(item, recipe.task, recipe.classes)]
    transform = build_transform(cache, config, model)
    adapted = adapt and adapt_batch_norm(model, cache, items, transform, recipe.frames, recipe.batch_size)
    scores = score_items(model, cache, items, transform, config, neutral=neutral)
    predictions = predict_items(scores, None, recipe)
    lacks = find_lacking(cache, items, recipe.modalities)
    people = {item.subject for item in tested}
    trained = list_tower_subjects(tower_config.name)
    if seen := [name for name in people if prefix_subject(cache.info.dataset, name) in trained]:
        notes.append(
            f"the tower was trained on {len(seen)} of the {len(people)} subjects ({name_some(sorted(seen))}); their scores "
            "are no test of it"
        )
    notes = [*notes, *describe_decisions(cache, items, recipe, neutral)]
    return ZeroShotScores(config, model, scores, predictions, lacks, tested, adapted, notes)


def _resolve_recipe(options: Options, cache: Cache, text: TextEmbeddings) -> tuple[Recipe, list[str]]:
    """Return the recipe of the untrained model, and notes on samples that it cannot use.

    Args:
        text: prompts of the classes, if they are chosen; else of all that there are.
    """
    expressions = tuple(name for name in text.class_names if not is_action_unit(name))
    classes = options.classes or find_task("classes").default_classes(expressions)
    if len(classes) < 2:
        raise FacetError(f"--classes: at least two are needed, found {', '.join(classes) or 'none'}")
    modalities, notes = choose_usable(cache, options.modalities or ())
    options = replace(
        change_options(options, ZERO_SHOT),
        protocol=DEFAULT_PROTOCOL,  # no subjects are split
        folds=1,
        rounds=1,
        fold=0,
        fold_seed=0,
        task="classes",
        classes=classes,
        modalities=modalities,
        views=tuple(map(str, cache.info.settings.views)),
    )
    options = replace(options, frames=choose_frames(gather_items(cache, options), 0))
    return resolve_model(options, text), notes


def _keep_labelled(predictions: Predictions) -> list[Prediction]:
    return [row for row in predictions.rows if row.labels and row.labels[0] in predictions.class_names]


def _test(name: str, predictions: Predictions, info: TestInfo) -> FoldResult:
    """Score the predictions whose labels are known; the 95 % interval is over subjects."""
    task, classes = find_task(info.task), info.class_names
    rows = _keep_labelled(predictions)
    by_subject = sorted(group_pairs((row.subject, row) for row in rows).items())
    counts = [task.count(own, classes) for _, own in by_subject]
    results = SubjectResults(task, {name: np.stack([one[name] for one in counts])[None] for name in task.count_dims})
    interval = percentile_interval(resample_score([results], task.primary.name, draw_resamples(len(counts))))
    return FoldResult(name, info, replace(task.test(rows, classes), interval_95=interval))
