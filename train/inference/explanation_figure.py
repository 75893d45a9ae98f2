"""Draw an explanation: a sample's images under maps of what hiding a part changes, probabilities, and attention."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.figures import encode_figure
from shared.modalities import get_modality
from shared.pictures import PICTURES, centre_face, describe_view, order_views
from shared.schema import parse_views
from train.inference.occlusion import spread_drops
from train.reporting.figures import BLUE, GREY, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from shared.attention_file import Attention
    from train.inference.explain import Explanation, Explanations

MAP_PX = 112  # of a drawn map
SMALLEST_SCALE = 0.01  # smaller drops are drawn fainter
IMAGE_INCHES = 2.1


def draw_explanation(explanations: Explanations, number: int, form: str) -> bytes:
    """Return a sample's picture: its images, views from left to right of the face; probabilities; attention of class texts
    to images; cosines with prompts.

    Args:
        number: the sample's index. form: as in `encode_figure`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    one, attention = explanations.samples[number], explanations.attention
    num_modalities, num_views = len(attention.modalities), len(attention.views)
    width, above_inches = max(IMAGE_INCHES * num_views + 1.1, 7.4), (IMAGE_INCHES + 0.15) * num_modalities
    below_inches = max(2.3, 0.9 + 0.19 * len(attention.class_names))
    notes = [*explanations.limits, explanations.cache.info.licence]
    foot = [line for note in notes for line in textwrap.wrap(note, int(width * 15))]
    height = above_inches + below_inches + 0.7 + 0.14 * len(foot)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[above_inches, below_inches])
        _draw_images(parts[0], explanations, number)
        _draw_classes(parts[1], one, attention, number)
        figure.suptitle(textwrap.fill(_describe(one), int(width * 11)), fontsize=10)
        figure.supxlabel("\n".join(foot), fontsize=7, color=RED if explanations.limits else GREY)
        return encode_figure(figure, form)


def _describe(one: Explanation) -> str:
    label = "+".join(one.prediction.labels)
    predicted = ", ".join(one.prediction.predicted) or "none of the classes"
    name = one.prediction.name  # a scan of `preprocess predict` is named by its path
    name = Path(name).name if Path(name).is_absolute() else name
    return f"{name}: predicted {predicted}" + f" (label {label})" * bool(label)


def _draw_images(part: SubFigure, explanations: Explanations, number: int) -> None:
    one, attention, cache = explanations.samples[number], explanations.attention, explanations.cache
    views = parse_views(",".join(attention.views))
    order = order_views(views)
    weights = _mean_over_frames(attention.view_weights[number], attention.frame_weights[number])
    row = int(attention.rows[number, attention.rows.shape[1] // 2])
    limit = max(float(np.abs(one.drops).max()), SMALLEST_SCALE)
    panels = part.subplots(len(attention.modalities), len(views), squeeze=False)
    mappable = None
    for line, modality in enumerate(attention.modalities):
        drawn = PICTURES[get_modality(modality).picture or modality]
        pixels = cache.arrays.read(modality, [row])[0] if cache.samples[row].has(modality) else None
        for axes, view in zip(panels[line], order, strict=True):
            _clear(axes)
            if line == 0:
                axes.set_title(describe_view(views[view]))
            if axes is panels[line, 0]:
                axes.set_ylabel(get_modality(modality).title(dynamic=bool(cache.info.settings.dynamic)))
            if pixels is None:
                axes.text(0.5, 0.5, "none", ha="center", va="center", color=GREY, transform=axes.transAxes)
                continue
            axes.set_xlabel(f"weight α {weights[line * len(views) + view]:.2f}", labelpad=2)
            picture = centre_face(drawn.draw(pixels[view], dynamic=bool(cache.info.settings.dynamic)), views[view])
            heat = centre_face(spread_drops(one.drops[view], MAP_PX), views[view], fill=0)
            axes.imshow(picture, extent=(0, 1, 1, 0))
            mappable = axes.imshow(
                heat,
                extent=(0, 1, 1, 0),
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
                alpha=0.7 * np.abs(heat) / limit,
                interpolation="bilinear",
            )
    if mappable is not None:
        bar = part.colorbar(mappable, ax=panels, shrink=0.7, aspect=30, pad=0.02)
        bar.solids.set_alpha(0.7)  # type: ignore[union-attr]
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}".replace("-", "−"))
        bar.set_label(f"fall of the probability of\n{one.explained} if hidden, points of 100")


def _clear(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _mean_over_frames(weights: np.ndarray, frame_weights: np.ndarray) -> np.ndarray:
    """Return f32 (N,) of weights (T, N) of the images of each frame."""
    return (weights.astype(np.float32) * frame_weights.astype(np.float32)[:, None]).sum(0)


def _draw_classes(part: SubFigure, one: Explanation, attention: Attention, number: int) -> None:
    """Draw a panel of each that there is: probabilities, MTGF's attention to images, cosines with prompts."""
    classes = attention.class_names
    tables = []
    if attention.class_attention is not None:
        seen = attention.class_attention[number].astype(np.float32).sum(1)
        views = parse_views(",".join(attention.views))
        order = [line * len(views) + view for line in range(len(attention.modalities)) for view in order_views(views)]
        images = [f"{m} {describe_view(view).removeprefix('yaw ')}" for m in attention.modalities for view in views]
        tables.append(("attention of each class's text to the images", seen[:, order], [images[i] for i in order]))
    if attention.prompt_cosines is not None:
        cosines = attention.prompt_cosines[number].astype(np.float32)
        tables.append(("cosine with each prompt of the class", cosines, [f"{k + 1}" for k in range(cosines.shape[1])]))
    first, *others = np.atleast_1d(part.subplots(1, 1 + len(tables), sharey=True))
    probabilities = one.prediction.probabilities
    bars = first.barh(range(len(classes)), probabilities, color=BLUE)
    first.bar_label(bars, [f"{100 * p:.0f} %" for p in probabilities], padding=2, fontsize=7)
    first.set_yticks(range(len(classes)), classes)
    first.set_xlim(0, 1.15)
    first.set_xticks([0, 0.5, 1])
    first.invert_yaxis()
    first.spines[["top", "right"]].set_visible(False)
    has_values = any("=" in name for name in one.prediction.predicted)
    first.set_title("intensity, in percent of the largest" if has_values else "probability")
    for axes, (title, values, names) in zip(others, tables, strict=True):
        image = axes.imshow(values, cmap="Blues", aspect="auto")
        turned = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if len(names[0]) > 3 else {}
        axes.set_xticks(range(len(names)), names, fontsize=6.5, **turned)
        axes.tick_params(left=False)
        axes.set_title(title)
        part.colorbar(image, ax=axes, pad=0.02, aspect=30).ax.tick_params(labelsize=6.5)
