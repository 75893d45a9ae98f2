"""`python -m train evaluate` and `predict`: use a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shared.cache import Cache, open_cache
from shared.errors import CacheError, FacetError
from train.checkpoint import load_weights
from train.config import RunConfig, read_config
from train.encoder import build_tower
from train.facet import Facet
from train.metrics import Metrics, compute_metrics
from train.prepare import Preparer
from train.protocols import read_split
from train.report import CONFUSION_PNG, METRICS_JSON, PREDICTIONS_CSV, format_table, write_predictions, write_report
from train.score import check_views, score_items
from train.stream import Item, find_items


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        FacetError: no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise FacetError(f"--device {name}: not available here; try auto or cpu") from error
    return device


def build_facet(
    config: RunConfig, device: torch.device, tower: nn.Module, text_mean: np.ndarray, logit_scale: float
) -> Facet:
    """The model of a run on its device; f32 parameters everywhere."""
    recipe = config.recipe
    torch.manual_seed(recipe.seed)
    model = Facet(
        tower,
        tower_dim=int(config.tower.config["embed_dim"]),
        text_mean=text_mean,
        logit_scale=logit_scale,
        num_modalities=len(recipe.modalities),
        num_frames=recipe.frames,
        fusion=recipe.fusion,
        head=recipe.head,
        consistency=recipe.lambda_con > 0,
        freeze_tower=recipe.tune == "frozen",
        autocast=device.type == "cuda",
    )
    return model.to(device)


def load_run(run: Path, device: torch.device) -> tuple[RunConfig, Facet]:
    """A trained model, from the run folder alone: no pretrained weights, prompts or training data are needed.

    Raises:
        FacetError: no run here, training not finished, or damaged.
    """
    config = read_config(run)
    text_mean = np.zeros((len(config.recipe.classes), config.text_dim), np.float32)  # comes with the weights
    model = build_facet(config, device, build_tower(config.tower.config), text_mean, logit_scale=1.0)
    load_weights(run, model)
    return config, model


def label_items(items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
    """Class indices i64 (n,)."""
    return np.array([classes.index(item.class_name) for item in items], np.int64)


def evaluate_items(
    folder: Path,
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    preparer: Preparer,
    config: RunConfig,
    num_train: int,
) -> Metrics:
    """Scores labelled items and writes metrics.json, predictions.csv and confusion.png into the folder."""
    classes = config.recipe.classes
    scores = score_items(model, cache, items, preparer, config)
    metrics = compute_metrics(label_items(items, classes), scores.probabilities.argmax(1), len(classes))
    num_subjects = len({item.subject for item in items})
    about = {
        "dataset": cache.info.dataset,
        "licence": cache.info.licence,
        "model": config.tower.name,
        "pretrained": config.tower.pretrained,
        "random_weights": config.is_random,
        "shuffled_labels": config.recipe.shuffle_labels >= 0,
        "num_test_subjects": num_subjects,
        "num_train_subjects": num_train,
    }
    marks = [f"{metrics.accuracy:.3f} of {metrics.num_samples} samples of {num_subjects} unseen subjects"]
    marks.append(f"chance {metrics.chance:.3f}" + (", random initial weights" if config.is_random else ""))
    if config.recipe.shuffle_labels >= 0:
        marks.append("training labels shuffled")
    write_report(folder, metrics, scores, classes, about, "\n".join(marks))
    return metrics


def print_result(folder: Path, metrics: Metrics, config: RunConfig, subjects: Sequence[str]) -> None:
    """The last lines of a run: the scores with chance beside them, where each file lies, what to run next."""
    low, high = metrics.accuracy_95
    print(format_table(metrics, config.recipe.classes))
    print(f"accuracy on {len(subjects)} unseen subjects {metrics.accuracy:.3f} (chance {metrics.chance:.3f}; 95 % {low:.3f} to "
          f"{high:.3f}), UAR {metrics.uar:.3f}, macro-F1 {metrics.macro_f1:.3f}")  # fmt: skip
    if config.is_random:
        print(
            "random weights: model or prompts were not pretrained, so this is no result to compare with published ones"
        )
    if config.recipe.shuffle_labels >= 0:
        print("control: training labels were shuffled, so accuracy should be near chance")
    print(f"confusion matrix  {folder / CONFUSION_PNG}")
    print(f"every prediction  {folder / PREDICTIONS_CSV}")
    print(f"all scores        {folder / METRICS_JSON}")


def print_next(run: Path) -> None:
    print(f"next: python -m train predict {run} --cache DIR   (a probability per class for other scans)")


def evaluate(run: Path, cache_path: Path | None, *, device: str) -> int:
    """Tests a run again on its own test subjects, or on another cache: there on every sample with one of its classes.

    Raises:
        FacetError, CacheError: no finished run; a cache with other view settings; nothing to test on.
    """
    where = choose_device(device)
    config, model = load_run(run, where)
    split = read_split(run)
    cache = open_cache(cache_path or Path(config.cache))
    check_views(cache, config, whose=str(run))
    items = [i for i in find_items(cache, config.recipe.modalities) if i.class_name in config.recipe.classes]
    if cache.info.content_hash == config.content_hash:
        folder = run
        items = [item for item in items if item.subject in set(split.test_subjects)]
    else:
        folder = run / f"on-{cache.path.resolve().name}"
        if cache.info.dataset == config.dataset:  # the same people may be in it
            items = [item for item in items if item.subject not in set(split.train_subjects)]
    if not items:
        raise CacheError(f"{cache.path}: no sample of an unseen subject is labelled {', '.join(config.recipe.classes)}")
    preparer = Preparer(config.recipe.modalities, cache.info.settings.views, config.tower, where)
    metrics = evaluate_items(folder, model, cache, items, preparer, config, len(split.train_subjects))
    print_result(folder, metrics, config, sorted({item.subject for item in items}))
    return 0


def predict(run: Path, cache_path: Path, out: Path | None, *, device: str) -> int:
    """Writes a probability per class for every usable scan or sequence of a cache, labelled or not.

    Raises:
        FacetError, CacheError: no finished run; a cache with other view settings; nothing to look at.
    """
    where = choose_device(device)
    config, model = load_run(run, where)
    cache = open_cache(cache_path)
    check_views(cache, config, whose=str(run))
    items = find_items(cache, config.recipe.modalities)
    if not items:
        raise CacheError(f"{cache.path}: no valid sample with {' or '.join(config.recipe.modalities)}")
    preparer = Preparer(config.recipe.modalities, cache.info.settings.views, config.tower, where)
    scores = score_items(model, cache, items, preparer, config)
    path = out or run / f"predictions-{cache.path.resolve().name}.csv"
    write_predictions(path, scores, config.recipe.classes)
    note = " (random initial weights)" if config.is_random else ""
    print(f"{len(items)} predictions among {', '.join(config.recipe.classes)}{note}: {path}")
    return 0
