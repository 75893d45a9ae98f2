"""`python -m train evaluate` and `predict`: apply a trained run to a cache."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.attention_file import ATTENTION_FILE
from shared.cache import CACHE_JSON, FAILURES_CSV, Cache, open_cache
from shared.command_line import print_next
from shared.errors import CacheError, FacetError
from shared.labels import NEUTRAL
from shared.runs import METRICS_JSON, Predictions, find_best_epoch, record_hashes, write_predictions
from shared.store.paths import is_address, is_file, open_path
from shared.store.storage import check_writable
from shared.text import TextEmbeddings
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.data.embeddings import Embeddings
from train.data.items import check_neutral, choose_modalities, describe_stabilising, find_neutral, gather_items
from train.data.prompts import find_prompts, match_prompts, read_prompts
from train.inference.centre import centre_logits, describe_centring
from train.inference.explain import EXPLANATIONS_H5, Explanations, explain
from train.inference.frame_votes import NO_VOTES, score_frame_votes
from train.inference.score import Scores, score_and_write_attention, score_items
from train.inference.thresholds import read_thresholds
from train.model.facet import Facet
from train.model.factory import choose_device, load_run
from train.options import Recipe
from train.protocols.evaluation_items import find_tested, is_own_test
from train.protocols.folds import read_split
from train.protocols.trained_subjects import find_seen
from train.reporting.crossval import find_limits
from train.reporting.report import print_result, write_report
from train.resolve import check_options, check_reference, take_views
from train.runs.groups import score_groups
from train.runs.results import FoldResult, TestInfo
from train.tasks.item import Item
from train.tasks.task import find_task

_UNIT = re.compile(r"AU(\d{1,2})")


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
    has_frames = recipe.frames > 1 and not task.several
    scores = score_and_write_attention(
        folder / ATTENTION_FILE, model, cache, items, build_transform(cache, config, model, embeddings), config, text,
        each_frame=has_frames and recipe.centre_scores == "none",
    )  # fmt: skip
    predictions = predict_items(scores, thresholds, recipe)
    no_votes = [NO_VOTES] * (has_frames and recipe.centre_scores != "none")
    for line in (*describe_decisions(cache, items, recipe), *no_votes):
        print(f"note: {line}")
    info = replace(describe_test(cache, config, model, items, num_train), best_epoch=best_epoch)
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
    if recipe.centre_scores != "none":
        more["accuracy_uncentred"] = task.test(predict_uncentred(scores, recipe).rows, recipe.classes)["accuracy"]
        print(f"accuracy with --centre-scores none: {more['accuracy_uncentred']:.3f}")
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


def describe_decisions(cache: Cache, items: Sequence[Item], recipe: Recipe) -> list[str]:
    """Return which scores are not centred as the recipe says, and where they should not be, a line each."""
    if recipe.centre_scores == "none":
        return []
    if recipe.centre_scores == NEUTRAL:
        without = _find_without_neutral(cache, items, recipe)
        return [
            f"{len(without)} of {len(items)} scores are not centred: their subjects ({len(set(without))}) have no neutral scan"
        ] * bool(without)
    names = [item.class_name if item.class_name in recipe.classes else "" for item in items]
    return describe_centring([item.subject for item in items], names, len(recipe.classes), recipe.centre_scores)


def _find_without_neutral(cache: Cache, items: Sequence[Item], recipe: Recipe) -> list[str]:
    """Return the subject, as the cache names it, of each item whose subject has no neutral scan."""
    names = [cache.samples[item.rows[0]].subject for item in items]
    known = {item.subject for item in find_neutral(cache, recipe, set(names))}
    return [name for name in names if name not in known]


def predict_items(scores: Scores, thresholds: np.ndarray | None, recipe: Recipe) -> Predictions:
    """Return predictions.csv of scored items."""
    task, classes = find_task(recipe.task), recipe.classes
    table = scores.probabilities
    if recipe.centre_scores != "none":
        subjects = [item.subject for item in scores.items]
        centred = centre_logits(scores.logits, subjects, recipe.centre_scores, scores.at_rest)
        table = task.compute_probabilities(torch.from_numpy(centred)).numpy()
    pairs = zip(scores.items, table, strict=True)
    rows = tuple(task.predict(item, probabilities, thresholds, classes) for item, probabilities in pairs)
    return Predictions(classes, task.several, rows)


def predict_uncentred(scores: Scores, recipe: Recipe) -> Predictions:
    """Return predictions.csv as it were without --centre-scores, which is for one class of several alone."""
    return predict_items(scores, None, replace(recipe, centre_scores="none"))


def build_transform(
    cache: Cache, config: RunConfig, model: Facet, embeddings: Embeddings | None = None
) -> BatchTransform:
    """Build the transform from this cache's images, or their embeddings, to the model's input on the model's device."""
    return BatchTransform(
        config.recipe.modalities,
        cache.info.settings.views,
        config.tower,
        model.text_mean.device,
        dynamic=bool(cache.info.settings.dynamic),
        only_flip=config.recipe.augment == "flip",
        embeddings=embeddings,
    )


def print_next_predict(run: Path, cache_path: Path | str) -> None:
    about = "a probability per class for every scan, of any cache with these views"
    print_next("train", "predict", run, "--cache", cache_path, about=about)


def evaluate(run: Path, cache_path: Path | None, *, device: str) -> int:
    """Test a run again on its own test subjects, or on every sample of another cache that has one of its classes.

    Raises:
        FacetError, CacheError: no finished run; a cache with other view settings; nothing to test on.
    """
    where = choose_device(device)
    config, model = load_run(run, where)
    recipe = config.recipe
    fold = read_split(run)
    cache = take_views(_open_tested(run, config, cache_path), config.render, recipe.modalities, whose=str(run))
    folder = run if is_own_test(cache, config) else run / f"on-{cache.name}"
    items = find_tested(cache, config, fold)
    check_writable(folder / METRICS_JSON)
    text = _find_prompts(cache, config, model)
    num_train = len(fold.train_subjects)
    result = evaluate_items(
        folder, model, cache, items, config, num_train, _thresholds(run, recipe), text=text,
        best_epoch=find_best_epoch(run),
    )  # fmt: skip
    print_result(folder, result)
    return 0


def _thresholds(run: Path, recipe: Recipe) -> np.ndarray | None:
    return read_thresholds(run, len(recipe.classes)) if find_task(recipe.task).has_thresholds else None


def _find_prompts(cache: Cache, config: RunConfig, model: Facet) -> TextEmbeddings | None:
    """Return the prompts of a run, from this cache or its own; None if they are in neither, or not used by its head."""
    if not model.has_text_scores:
        return None
    mean, recipe = model.text_mean.cpu().numpy(), config.recipe
    found = find_prompts(cache, recipe.model, recipe.classes, mean)
    if found is None and config.prompts and not is_address(config.prompts):
        with suppress(FacetError):  # the prompts of the training may be gone
            found = match_prompts(read_prompts(open_path(config.prompts), recipe.model, recipe.classes), mean)
    for path in (config.test_cache, config.cache):
        if found is None and path and not is_address(path):
            with suppress(FacetError):
                found = find_prompts(open_cache(path), recipe.model, recipe.classes, mean)
    return found


def _open_tested(run: Path, config: RunConfig, cache_path: Path | None) -> Cache:
    recorded = config.test_cache or config.cache
    if cache_path is None:
        if not recorded:
            raise FacetError(f"{run}: an exported model does not record its cache; give --cache DIR")
        if is_address(recorded):
            raise FacetError(
                f"{run}: was tested on the cache {recorded}; a cache at an address is read only if you name it: give "
                f"--cache {recorded}"
            )
        if not is_file(open_path(recorded) / CACHE_JSON):
            raise CacheError(
                f"{recorded}: {run} was tested on this cache, which is not there any more; give --cache DIR if it was moved, "
                "or build it again with `python -m preprocess build`"
            )
    return open_cache(cache_path or recorded)


def choose_usable(cache: Cache, wanted: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Call `choose_modalities` with all valid rows; the notes also count those that are not valid."""
    valid = [row for row, sample in enumerate(cache.samples) if sample.valid]
    modalities, notes = choose_modalities(cache, wanted, valid)
    num_invalid = len(cache.samples) - len(valid)
    unit = "frames" if cache.sequences else "scans"
    more = f"{num_invalid} of {len(cache.samples)} {unit} are not valid and get no prediction; see {FAILURES_CSV}"
    return modalities, [*notes, *[more] * bool(num_invalid)]


def find_lacking(cache: Cache, items: Sequence[Item], modalities: Sequence[str]) -> list[str]:
    """Return the modalities that some image of each item lacks, joined by +."""
    return [
        "+".join(m for m in modalities if not all(cache.samples[row].has(m) for row in item.rows)) for item in items
    ]


@dataclass(frozen=True)
class Predictor:
    """A trained model, for any cache with the views of its training."""

    run: Path
    config: RunConfig
    model: Facet
    thresholds: np.ndarray | None

    @classmethod
    def load(cls, run: Path, device: str = "auto") -> Predictor:
        """Load a run or an exported model.

        Raises:
            FacetError: no finished run, or a damaged one; no such device.
        """
        config, model = load_run(run, choose_device(device))
        return cls(run, config, model, _thresholds(run, config.recipe))

    def centre(self, by: str) -> Predictor:
        """Return the same model, whose scores are centred as `centre_logits` does.

        Raises:
            FacetError: not possible for its classes, or its faces are compared with neutral scans already.
        """
        recipe = replace(self.config.recipe, centre_scores=by)
        check_options(recipe)
        check_reference(recipe, recipe.classes)
        return replace(self, config=replace(self.config, recipe=recipe))

    def open(self, cache: Cache | Path | str) -> Inference:
        """Open a cache to predict every scan or sequence that has a modality of the model.

        Raises:
            CacheError: other view settings; no usable sample.
            FacetError: the model compares faces with a reference, and the cache has none.
        """
        recipe = self.config.recipe
        opened = cache if isinstance(cache, Cache) else open_cache(cache)
        cache = take_views(opened, self.config.render, recipe.modalities, whose=str(self.run))
        items = gather_items(cache, recipe)
        if not items:
            raise CacheError(f"{cache.path}: no valid sample with {' or '.join(recipe.modalities)}")
        return Inference(self, cache, items)


@dataclass(frozen=True)
class Inference:
    """A model and the samples of a cache."""

    predictor: Predictor
    cache: Cache
    items: Sequence[Item]

    @property
    def limits(self) -> list[str]:
        """Return what keeps the predictions from being results, a line each."""
        config = self.predictor.config
        recipe = config.recipe
        few = len(self.items) < len(recipe.classes)
        if recipe.centre_scores == NEUTRAL:
            few = len(_find_without_neutral(self.cache, self.items, recipe)) == len(self.items)
        if few:  # none is centred, which describe_decisions says
            config = replace(config, recipe=replace(recipe, centre_scores="none"))
        return find_limits(config) + describe_decisions(self.cache, self.items, recipe)

    @cached_property
    def _transform(self) -> BatchTransform:
        return build_transform(self.cache, self.predictor.config, self.predictor.model)

    @cached_property
    def _text(self) -> TextEmbeddings | None:
        return _find_prompts(self.cache, self.predictor.config, self.predictor.model)

    def predict(self, attention: Path | None = None) -> Predictions:
        """Return probabilities and decisions for every sample.

        Args:
            attention: file to write the attention weights of the same passes to.
        """
        model, config = self.predictor.model, self.predictor.config
        arguments = model, self.cache, self.items, self._transform, config
        if attention is None:
            scores = score_items(*arguments)
        else:
            scores = score_and_write_attention(attention, *arguments, self._text)
        return predict_items(scores, self.predictor.thresholds, config.recipe)

    def write(self, path: Path, predictions: Predictions, *, like: Path | None = None) -> None:
        """Write a table of predictions, with the modalities that samples lack, and action units as OpenFace names them."""
        lacks = find_lacking(self.cache, self.items, self.predictor.config.recipe.modalities)
        write_predictions(path, predictions, {"lacks": lacks, **name_like_openface(predictions)}, like=like)

    def explain(self, predictions: Predictions, wanted: str) -> Explanations:
        """Explain chosen predictions; wanted: as in `choose_samples`."""
        model, config = self.predictor.model, self.predictor.config
        return explain(model, self.cache, self.items, predictions, self._transform, config, self._text, wanted)


def name_like_openface(predictions: Predictions) -> dict[str, list[str]]:
    """Return the columns of OpenFace's output for predicted action units: AU04_c is 1 (present) or 0, or AU04_r is the
    intensity, 0 to 5, of a unit predicted as AU4=3.1; {} for other classes."""
    columns: dict[str, list[str]] = {}
    for name in predictions.class_names:
        if (unit := _UNIT.fullmatch(name)) is None:
            continue
        found = [dict(one.partition("=")[::2] for one in row.predicted).get(name) for row in predictions.rows]
        if any(found):
            columns[f"AU{int(unit[1]):02d}_r"] = [value or "0" for value in found]
        else:
            columns[f"AU{int(unit[1]):02d}_c"] = [str(int(value is not None)) for value in found]
    return columns


def predict(
    run: Path,
    cache_path: Path,
    out: Path | None,
    *,
    device: str,
    explained: str | None = None,
    form: str = "png",
    centre: str | None = None,
) -> int:
    """Write a probability per class for every usable scan or sequence of a cache, labelled or not.

    Args:
        explained: samples to explain, as in `choose_samples`; None: none. form: of their pictures.
        centre: none, neutral, subject or all, see `centre_logits`; None: as the run was tested.
    Raises:
        FacetError, CacheError: no finished run; a cache with other view settings; no usable sample.
    """
    if out is not None and out.is_dir():
        raise FacetError(f"--out {out}: is a folder; give the name of a CSV file")
    predictor = Predictor.load(run, device)
    if centre is not None:
        predictor = predictor.centre(centre)
    inference = predictor.open(cache_path)
    cache, recipe = inference.cache, predictor.config.recipe
    if centre is not None:
        check_neutral(cache, recipe)
    unlike = describe_stabilising(cache, predictor.config.render, whose=str(run))
    for note in (*choose_usable(cache, recipe.modalities)[1], *unlike):
        print(f"note: {note}", file=sys.stderr)
    subjects = {sample.subject for sample in cache.samples if sample.valid}
    seen = find_seen(predictor.config, read_split(run), cache, subjects)
    if seen.subjects:
        num, known = len(seen.subjects), f"; {seen.doubt}" * bool(seen.doubt)
        lines = [
            f"{num} of the {len(subjects)} subjects were in training; their predictions are no test of the model{known}"
        ]
    else:
        lines = []
    for line in (*seen.describe_people(), *lines):
        print(f"note: {line}", file=sys.stderr)
    path, beside = out or run / f"predictions-{cache.name}.csv", run / f"attention-{cache.name}.safetensors"
    check_writable(path)
    predictions = inference.predict(None if out else beside)
    inference.write(path, predictions, like=cache.path if out else run)
    if out is None:
        record_hashes(run, (path.name, beside.name))
    print(f"{len(predictions.rows)} predictions among {', '.join(recipe.classes)}: {path}")
    for line in inference.limits:
        print(line)
    if explained is not None:
        folder = run / f"explained-{cache.name}" if out is None else out.with_name(f"{out.stem}-explained")
        explanations = inference.explain(predictions, explained)
        explanations.write(folder, form)
        num = len(explanations.samples)
        print(f"{num} sample{'s' * (num > 1)} explained: {folder}/*.{form}, {folder / EXPLANATIONS_H5}")
        print(cache.info.licence)
    return 0
