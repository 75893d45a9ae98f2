"""A trained model applied to a cache: probabilities and decisions for every sample, and their explanations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from shared.cache import FAILURES_CSV, Cache, open_cache
from shared.errors import CacheError, FacetError
from shared.labels import NEUTRAL
from shared.runs import Predictions, write_predictions
from shared.store.paths import is_address, open_path
from shared.text import TextEmbeddings
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.data.embeddings import Embeddings
from train.data.items import choose_modalities, find_neutral, gather_items
from train.data.prompts import find_prompts, match_prompts, read_prompts
from train.inference.centre import centre_logits, describe_centring
from train.inference.explain import Explanations, explain
from train.inference.score import Scores, score_and_write_attention, score_items
from train.inference.thresholds import read_thresholds
from train.model.facet import Facet
from train.model.factory import choose_device, load_run
from train.options import Recipe
from train.reporting.limits import find_limits
from train.resolve import check_options, check_reference, take_views
from train.tasks.item import Item
from train.tasks.task import find_task

_UNIT = re.compile(r"AU(\d{1,2})")


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
        return cls(run, config, model, read_thresholds(run, config.recipe))

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
        return Inference(self, cache, items, find_neutral(cache, recipe))


@dataclass(frozen=True)
class Inference:
    """A model and the samples of a cache; neutral: as `find_neutral`."""

    predictor: Predictor
    cache: Cache
    items: Sequence[Item]
    neutral: Sequence[Item]

    @property
    def limits(self) -> list[str]:
        """Return what keeps the predictions from being results, a line each."""
        config = self.predictor.config
        recipe = config.recipe
        few = len(self.items) < len(recipe.classes)
        if recipe.centre_scores == NEUTRAL:
            few = len(find_without_neutral(self.cache, self.items, self.neutral)) == len(self.items)
        if few:  # none is centred, which describe_decisions says
            config = replace(config, recipe=replace(recipe, centre_scores="none"))
        return find_limits(config) + self.describe_decisions()

    def describe_decisions(self) -> list[str]:
        """Call `describe_decisions` for these samples."""
        return describe_decisions(self.cache, self.items, self.predictor.config.recipe, self.neutral)

    @cached_property
    def _transform(self) -> BatchTransform:
        return build_transform(self.cache, self.predictor.config, self.predictor.model)

    @cached_property
    def _text(self) -> TextEmbeddings | None:
        return find_prompts_of_run(self.cache, self.predictor.config, self.predictor.model)

    def predict(self, attention: Path | None = None) -> Predictions:
        """Return probabilities and decisions for every sample.

        Args:
            attention: file to write the attention weights of the same passes to.
        """
        model, config = self.predictor.model, self.predictor.config
        arguments = model, self.cache, self.items, self._transform, config
        if attention is None:
            scores = score_items(*arguments, neutral=self.neutral)
        else:
            scores = score_and_write_attention(attention, *arguments, self._text, neutral=self.neutral)
        return predict_items(scores, self.predictor.thresholds, config.recipe)

    def write(self, path: Path, predictions: Predictions, *, like: Path | None = None) -> None:
        """Write a table of predictions, with the modalities that samples lack, and action units as OpenFace names them."""
        lacks = find_lacking(self.cache, self.items, self.predictor.config.recipe.modalities)
        write_predictions(path, predictions, {"lacks": lacks, **name_like_openface(predictions)}, like=like)

    def explain(self, predictions: Predictions, wanted: str) -> Explanations:
        """Explain chosen predictions; wanted: as in `choose_samples`."""
        model, config = self.predictor.model, self.predictor.config
        return explain(model, self.cache, self.items, predictions, self._transform, config, self._text, wanted)


def find_without_neutral(cache: Cache, items: Sequence[Item], neutral: Sequence[Item]) -> list[str]:
    """Return the subject, as the cache names it, of each item whose subject has no neutral scan."""
    known = {item.subject for item in neutral}
    names = [cache.samples[item.rows[0]].subject for item in items]
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


def describe_decisions(cache: Cache, items: Sequence[Item], recipe: Recipe, neutral: Sequence[Item]) -> list[str]:
    """Return which scores are not centred as the recipe says, and where they should not be, a line each.

    Args:
        neutral: as `find_neutral`.
    """
    if recipe.centre_scores == "none":
        return []
    if recipe.centre_scores == NEUTRAL:
        without = find_without_neutral(cache, items, neutral)
        return [
            f"{len(without)} of {len(items)} scores are not centred: their subjects ({len(set(without))}) have no neutral scan"
        ] * bool(without)
    names = [item.class_name if item.class_name in recipe.classes else "" for item in items]
    return describe_centring([item.subject for item in items], names, len(recipe.classes), recipe.centre_scores)


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


def find_prompts_of_run(cache: Cache, config: RunConfig, model: Facet) -> TextEmbeddings | None:
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
