"""Explain predictions: what attention weighted, and which parts of the face a probability depends on.

Occlusion: a grey square slides over one view at a time, in all its modalities and frames (the reference, too); recorded is by
how much the probability of the predicted class falls (Zeiler & Fergus 2014, "Visualizing and understanding convolutional
networks", section 4.2). Grey is the mean colour of the tower's training images, 0 after normalisation. Unlike attention,
which only says how images were weighted, a drop is a measured effect on the prediction.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from shared.attention_file import Attention
from shared.cache import Cache
from shared.errors import FacetError
from shared.modalities import get_modality
from shared.runs import Prediction, Predictions
from shared.store.hdf5_tables import encode_hdf5_tables
from shared.store.storage import make_folder, write_file
from shared.text import TextEmbeddings
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.inference.attention_records import AttentionTable
from train.inference.score import score_items
from train.model.facet import Batch, Facet
from train.reporting.figures import BLUE, encode_figure
from train.tasks.item import Item
from train.tasks.task import Task, find_task

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

GRID = 7  # positions of the square along each side
SQUARES_PER_SIDE = 4  # the square's side is a quarter of the image's: squares overlap by half
MAP_PX = 112  # of a drawn map
SMALLEST_SCALE = 0.01  # smaller drops are drawn fainter
EXPLANATIONS_H5 = "explanations.h5"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a prediction depends on, for one sample. C classes, V views.

    drops: f32 (V, GRID, GRID), by how much the probability of class `explained` falls with the square there; row 0 on top.
    """

    prediction: Prediction
    explained: int
    drops: np.ndarray


def explain(
    folder: Path,
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    predictions: Predictions,
    transform: BatchTransform,
    config: RunConfig,
    text: TextEmbeddings | None,
    wanted: str,
) -> int:
    """Explain chosen predictions: a picture of each in the folder, and the numbers of all in explanations.h5.

    Args:
        items: those of the predictions. text: the classes' prompts, if known. wanted: as in `choose_samples`.
    Returns:
        The number of samples explained.
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
            found.append(Explanation(row, explained, drops))
    cache.check_unchanged()
    make_folder(folder, like=cache.path)
    for old in folder.glob("[0-9][0-9][0-9]-*.png"):  # of an earlier choice
        old.unlink()
    write_file(folder / EXPLANATIONS_H5, _encode(found, attention, transform), like=cache.path)
    for number, one in enumerate(tqdm(found, desc="draw", unit="picture", leave=False, disable=None)):
        name = re.sub(r"[^\w.-]+", "_", one.prediction.name)[:80]
        picture = draw_explanation(cache, one, attention, number)
        write_file(folder / f"{number + 1:03d}-{name}.png", picture, like=cache.path)
    return len(found)


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


def place_squares(size_px: int) -> tuple[int, list[int]]:
    """Return the side of the square, and the GRID places where it begins, from edge to edge of the image."""
    square = round(size_px / SQUARES_PER_SIDE)
    return square, np.linspace(0, size_px - square, GRID).round().astype(int).tolist()


@torch.inference_mode()
def occlude(
    probability: Callable[[Batch], Tensor], batch: Batch, batch_size: int, update: Callable[[int], object]
) -> np.ndarray:
    """Return by how much a probability falls while a square hides a part of one view, f32 (V, GRID, GRID).

    Args:
        probability: f32 (B,) of a batch. batch: images of one sample. batch_size: copies of it in one forward pass.
        update: is called with the number of squares done.
    """
    assert batch.images is not None and len(batch.images) == 1
    num_views = batch.dims[3]
    square, starts = place_squares(batch.images.shape[-1])
    places = [(view, top, left) for view in range(num_views) for top in starts for left in starts]
    hidden = []
    for first in range(0, len(places), batch_size):
        part = places[first : first + batch_size]
        tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
        copies = {name: value.repeat(len(part), *[1] * (value.ndim - 1)) for name, value in tensors.items()}
        for image, (view, top, left) in zip(copies["images"], part, strict=True):
            image[:, :, view, :, top : top + square, left : left + square] = 0
        hidden.append(probability(dataclasses.replace(batch, **copies)).cpu())  # type: ignore[arg-type]
        update(len(part))
    drops = probability(batch).cpu() - torch.cat(hidden)
    return drops.view(num_views, GRID, GRID).numpy()


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
        "explained": np.array([attention.class_names[one.explained] for one in found]),
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


# --- pictures ---


def draw_explanation(cache: Cache, one: Explanation, attention: Attention, number: int) -> bytes:
    """Draw a sample as PNG: its images under the map of their view, probabilities, and attention of classes and prompts.

    Args:
        attention: of all samples; number: the sample's index in it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    modalities, views = attention.modalities, attention.views
    weights = _mean_over_frames(attention.view_weights[number], attention.frame_weights[number])
    frame = attention.rows.shape[1] // 2
    row = int(attention.rows[number, frame])
    strongest = max(float(np.abs(one.drops).max()), SMALLEST_SCALE)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 8}):
        figure = Figure(figsize=(max(2.1 * len(views), 7), 2.3 * len(modalities) + 2.8), dpi=110, layout="constrained")
        parts: np.ndarray = figure.subfigures(2, 1, height_ratios=[2.3 * len(modalities), 2.4])  # type: ignore[assignment]
        above, below = parts
        panels = above.subplots(len(modalities), len(views), squeeze=False)
        for line, modality in enumerate(modalities):
            pixels = cache.arrays.read(modality, [row])[0] if cache.samples[row].has(modality) else None
            for column, axes in enumerate(panels[line]):
                axes.set_axis_off()
                axes.set_title(f"{modality} {views[column]}: α {weights[line * len(views) + column]:.2f}", fontsize=8)
                if pixels is None:
                    continue
                picture = get_modality(modality).draw(pixels[column], dynamic=bool(cache.info.settings.dynamic))
                heat = spread_drops(one.drops[column], MAP_PX)
                axes.imshow(picture, extent=(0, 1, 1, 0))
                axes.imshow(
                    heat,
                    extent=(0, 1, 1, 0),
                    cmap="RdBu_r",
                    vmin=-strongest,
                    vmax=strongest,
                    alpha=0.65 * np.abs(heat) / strongest,
                )
        _draw_classes(below, one, attention, number)
        figure.suptitle(_describe(one, attention.class_names), fontsize=9)
        return encode_figure(figure, "png")


def spread_drops(drops: np.ndarray, size_px: int) -> np.ndarray:
    """Return a map (size, size) of one view: at each pixel the mean over the squares that hid it."""
    square, starts = place_squares(size_px)
    total, count = np.zeros((size_px, size_px)), np.zeros((size_px, size_px))
    for (row, column), drop in np.ndenumerate(drops):
        there = slice(starts[row], starts[row] + square), slice(starts[column], starts[column] + square)
        total[there] += drop
        count[there] += 1
    return total / count


def _mean_over_frames(weights: np.ndarray, frame_weights: np.ndarray) -> np.ndarray:
    """Return f32 (N,) of weights (T, N) of the images of each frame."""
    return (weights.astype(np.float32) * frame_weights.astype(np.float32)[:, None]).sum(0)


def _describe(one: Explanation, classes: Sequence[str]) -> str:
    labels = "+".join(one.prediction.labels) or "no label"
    name, probability = classes[one.explained], one.prediction.probabilities[one.explained]
    return (
        f"{one.prediction.name}: {labels}, predicted {'+'.join(one.prediction.predicted) or 'nothing'}\n"
        f"red: hiding it lowers the probability of {name} ({100 * probability:.1f} %), at most by {100 * one.drops.max():.1f} "
        "points; blue: raises it"
    )


def _draw_classes(part: SubFigure, one: Explanation, attention: Attention, number: int) -> None:
    """Draw a panel of each that there is: probabilities, MTGF's attention to images, cosines with prompts."""
    classes = attention.class_names
    tables = {}
    if attention.class_attention is not None:
        seen = attention.class_attention[number].astype(np.float32).sum(1)
        tables["attention of the class texts"] = (
            seen,
            [f"{m} {v}" for m in attention.modalities for v in attention.views],
        )
    if attention.prompt_cosines is not None:
        cosines = attention.prompt_cosines[number].astype(np.float32)
        tables["cosine with each prompt"] = (cosines, [str(k + 1) for k in range(cosines.shape[1])])
    first, *others = np.atleast_1d(part.subplots(1, 1 + len(tables)))
    first.barh(range(len(classes)), one.prediction.probabilities, color=BLUE)
    first.set_yticks(range(len(classes)), classes)
    first.set_xlim(0, 1)
    first.invert_yaxis()
    first.set_title("probability", fontsize=8)
    for axes, (title, (values, names)) in zip(others, tables.items(), strict=True):
        axes.imshow(values, cmap="Blues", aspect="auto")
        axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=6.5)
        axes.set_yticks([])
        axes.set_title(f"{title},\n{np.nanmin(values):.2f} to {np.nanmax(values):.2f}", fontsize=8)
