"""Explain predictions: what attention weighted, and which parts of the face a probability depends on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from shared.attention_file import Attention
from shared.cache import Cache
from shared.errors import FacetError
from shared.runs import Prediction, Predictions
from shared.store.hdf5_tables import encode_hdf5_tables
from shared.store.storage import make_folder, write_file
from shared.text import TextEmbeddings
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.inference.attention_records import AttentionTable
from train.inference.explanation_figure import draw_explanation
from train.inference.occlusion import GRID, occlude, place_squares
from train.inference.score import score_items
from train.model.batch import Batch
from train.model.facet import Facet
from train.reporting.limits import find_limits
from train.tasks.item import Item
from train.tasks.task import Task, find_task

EXPLANATIONS_H5 = "explanations.h5"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a prediction depends on, for one sample. C classes, V views.

    drops: f32 (V, GRID, GRID), by how much the probability of class `explained` falls with the square there; row 0 on top.
    """

    prediction: Prediction
    explained: str
    drops: np.ndarray


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Explanations of some samples of a cache, and the attention of the same samples, in the same order."""

    cache: Cache
    transform: BatchTransform
    samples: Sequence[Explanation]
    attention: Attention
    limits: Sequence[str]  # what keeps the predictions from being a result

    def draw(self, number: int, form: str = "png") -> bytes:
        """Return the picture of a sample; form: as in `encode_figure`."""
        return draw_explanation(self, number, form)

    def write(self, folder: Path, form: str = "png") -> None:
        """Write a picture of each sample, and the numbers of all in explanations.h5; form: as in `encode_figure`."""
        like = self.cache.path
        make_folder(folder, like=like)
        for old in folder.glob("[0-9][0-9][0-9]-*.*"):  # of an earlier choice
            old.unlink()
        write_file(folder / EXPLANATIONS_H5, _encode(self.samples, self.attention, self.transform), like=like)
        for number, one in enumerate(tqdm(self.samples, desc="draw", unit="picture", leave=False, disable=None)):
            name = re.sub(r"[^\w.-]+", "_", one.prediction.name)[:80]
            write_file(folder / f"{number + 1:03d}-{name}.{form}", self.draw(number, form), like=like)


def explain(
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    predictions: Predictions,
    transform: BatchTransform,
    config: RunConfig,
    text: TextEmbeddings | None,
    wanted: str,
) -> Explanations:
    """Explain chosen predictions.

    Args:
        items: those of the predictions. text: the classes' prompts, if known. wanted: as in `choose_samples`.
    Raises:
        FacetError: no sample of a name.
    """
    chosen = choose_samples(predictions, wanted)
    own, rows = [items[index] for index in chosen], [predictions.rows[index] for index in chosen]
    table = AttentionTable(own, config.recipe.frames, text if model.has_text_scores else None)
    score_items(model, cache, own, transform, config, table)
    attention = table.finish(predictions.class_names, transform.modalities, cache.info.settings.views)
    references = config.recipe.reference != "none"
    found = []
    num_squares = len(transform.views) * GRID**2
    with tqdm(
        total=len(own) * num_squares, desc="occlude", unit="square", dynamic_ncols=True, leave=False, disable=None
    ) as bar:
        for row, item in zip(rows, own, strict=True):
            (raw,) = transform.stream(cache, [[item]], config.recipe.frames, references=references)
            explained = int(np.argmax(row.probabilities))
            probability = partial(_find_probability, model, find_task(config.recipe.task), explained)
            drops = occlude(probability, transform.prepare(raw), config.recipe.batch_size, bar.update)
            found.append(Explanation(row, predictions.class_names[explained], drops))
    cache.check_unchanged()
    return Explanations(cache, transform, found, attention, find_limits(config))


def choose_samples(predictions: Predictions, wanted: str) -> list[int]:
    """Return the indices of the predictions to explain, in their order.

    Args:
        wanted: how many: wrong ones, the most certain first, then right and unlabelled ones, the least certain first. Or names
            of samples, separated by commas.
    Raises:
        FacetError: no sample of a name.
    """
    index = {row.name: number for number, row in enumerate(predictions.rows)}
    if wanted.isdecimal() and wanted not in index:

        def rank(number: int) -> tuple[bool, float]:
            confidence = max(predictions.rows[number].probabilities)
            wrong = _is_wrong(predictions.rows[number], predictions)
            return not wrong, -confidence if wrong else confidence

        if not int(wanted):
            raise FacetError("--explain 0: expected at least 1 sample, or names")
        return sorted(range(len(index)), key=rank)[: int(wanted)]
    names = [wanted] if wanted in index else wanted.split(",")
    if unknown := [name for name in names if name not in index]:
        raise FacetError(f"--explain {unknown[0]}: no such sample; give names of the column sample_id, or how many")
    return [index[name] for name in names]


def _is_wrong(row: Prediction, predictions: Predictions) -> bool:
    """Return whether a decision differs from a known label; False for a label that is none of the classes."""
    if predictions.several:
        return {*row.labels} != {*row.predicted} - {*row.unknown}
    return row.labels != row.predicted and any(name in predictions.class_names for name in row.labels)


def _find_probability(model: Facet, task: Task, index: int, batch: Batch) -> Tensor:
    return task.compute_probabilities(model(batch).logits)[:, index]


def _encode(found: Sequence[Explanation], attention: Attention, transform: BatchTransform) -> bytes:
    """Return explanations.h5: drops (n, V, GRID, GRID) of the class `explained`, and the arrays of `Attention`."""
    names = ("frame_weights", "view_weights", "view_attention", "class_attention", "class_share", "prompt_cosines")
    tables = {name: array for name in names if (array := getattr(attention, name)) is not None}
    tables |= {
        "sample_id": np.array(attention.names),
        "label": np.array(["+".join(one.prediction.labels) for one in found]),
        "predicted": np.array(["+".join(one.prediction.predicted) for one in found]),
        "probabilities": np.array([one.prediction.probabilities for one in found], np.float32),
        "explained": np.array([one.explained for one in found]),
        "drops": np.stack([one.drops for one in found]),
        "class_names": np.array(attention.class_names),
        "modalities": np.array(attention.modalities),
        "views": np.array(attention.views),
    }
    if attention.prompts:
        longest = max(map(len, attention.prompts))
        tables["prompts"] = np.array([[*own, *[""] * (longest - len(own))] for own in attention.prompts])
    square, starts = place_squares(transform.tower.image_size)
    return encode_hdf5_tables(
        tables, {"square_px": square, "starts_px": starts, "image_px": transform.tower.image_size}
    )
