"""Start from a trained model (--init-from): copy what fits, and name what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.errors import FacetError
from train.config import RunConfig, TowerConfig
from train.model.facet import Facet
from train.model.factory import load_run
from train.model.image_tower import hash_state
from train.model.view_towers import ViewTowers
from train.options import Recipe

_TOWER = "tower."


def load_initial_model(run: Path) -> tuple[RunConfig, Facet, nn.Module, TowerConfig]:
    """Load a trained model, on the CPU.

    Returns:
        Its configuration; the model; its image tower, of several the first; the description of this tower.
    Raises:
        FacetError: the run is damaged, or has no weights.
    """
    config, model = load_run(run, torch.device("cpu"))
    tower = model.tower.towers[0] if isinstance(model.tower, ViewTowers) else model.tower
    assert isinstance(tower, nn.Module)
    return config, model, tower, replace(config.tower, weights_hash=hash_state(tower.state_dict()))


@torch.no_grad()
def copy_weights(model: Facet, recipe: Recipe, source: Facet, source_recipe: Recipe) -> tuple[str, ...]:
    """Copy every weight that fits: of the same name and shape; of classes and modalities, rows of the same name.

    Prompt embeddings are no weights: the model keeps those of its own classes.

    Returns:
        What was copied, and what was not, a line each.
    Raises:
        FacetError: the image towers are not alike.
    """
    mine, theirs = _list_weights(model), _list_weights(source)
    rows = dict.fromkeys(model.class_parameters, (recipe.classes, source_recipe.classes))
    rows |= {name: (recipe.modalities, source_recipe.modalities) for name in mine if name.split(".")[-1] == "modality"}
    has_towers = [isinstance(one.tower, ViewTowers) for one in (model, source)]
    if has_towers == [True, False]:  # all of them started from the one tower
        mine = {name: value for name, value in mine.items() if not name.startswith(_TOWER)}
        theirs = {name: value for name, value in theirs.items() if not name.startswith(_TOWER)}
    same_images = (recipe.views, recipe.modalities) == (source_recipe.views, source_recipe.modalities)
    by_place = ("fusion.",) * (recipe.fusion == "concat") + (_TOWER,) * all(has_towers)  # know a view by its place
    lacking, unlike = [], []
    for name, value in mine.items():
        other = theirs.get(name)
        if other is None:
            lacking.append(name)
        elif (name.startswith(by_place) and not same_images) or value.shape[name in rows :] != other.shape[
            name in rows :
        ]:
            unlike.append(name)
        elif name in rows:
            _copy_rows(value, other, *rows[name])
        else:
            value.copy_(other)
    if any(name.startswith(_TOWER) for name in (*lacking, *unlike)):
        raise FacetError(
            f"--init-from {recipe.init_from}: its image tower, or its towers per view, are others than those of this run; "
            "choose the same --model, --towers and --views"
        )
    return (
        f"{len(mine) - len(lacking) - len(unlike)} of {len(mine)} weights are copied",
        *_describe("new, because it has none", lacking),
        *_describe("new, because its own are of another shape or of other views", unlike),
        *_describe("of it, not used", [name for name in theirs if name not in mine]),
        *[f"its --background was {source_recipe.background}, this run's is {recipe.background}"]
        * (source_recipe.background != recipe.background),
        *_describe_classes(model, recipe.classes, source_recipe.classes),
    )


def _list_weights(model: Facet) -> dict[str, Tensor]:
    """Return the weights by name, without those that follow from prompts or labels; they share the model's memory."""
    from_data = {"text_mean", "view_text.differences", *["class_bias"] * model.multilabel} - model.class_parameters
    return {name: value for name, value in model.state_dict().items() if name not in from_data}


def _copy_rows(value: Tensor, other: Tensor, names: Sequence[str], other_names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name in other_names:
            value[index].copy_(other[other_names.index(name)])


def _describe(what: str, names: Sequence[str]) -> list[str]:
    """Return one line on weights by the parts of the model that they belong to; [] without any."""
    parts = Counter(name.split(".")[0] for name in names)
    return [f"{what}: {', '.join(f'{part} ({num})' for part, num in parts.items())}"] if parts else []


def _describe_classes(model: Facet, names: Sequence[str], other_names: Sequence[str]) -> list[str]:
    """Return which classes keep what was learned of them; [] if a class is only its text."""
    if not model.class_parameters:
        return []
    known, new = ([name for name in names if (name in other_names) == kept] for kept in (True, False))
    return [
        f"classes that keep what was learned of them: {', '.join(known) or 'none'}; new: {', '.join(new) or 'none'}"
    ]
