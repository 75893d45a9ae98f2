"""The model's parts by name: the values of `--fusion`, `--head` and `--extra-losses`.

A new part is one file with its class, and one line here. Imports nothing heavy: --help lists the parts without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from shared.errors import FacetError


@dataclass(frozen=True)
class Part:
    """A fusion, head or loss term: its class, and its description in --help.

    option: field of the configuration that holds a loss term's weight; empty: it is given by --extra-losses.
    title: what figures call it; empty: its name.
    """

    module: str
    class_name: str
    about: str
    option: str = ""
    title: str = ""

    def load(self) -> Any:
        """Import the class: a Fusion, a Head or a LossTerm."""
        return getattr(import_module(self.module), self.class_name)


FUSIONS = {
    "cvsa": Part("train.model.cvsa", "CrossViewAttention", "attention between views (CVSA)"),
    "mean": Part("train.model.mean_fusion", "MeanFusion", "mean of the views"),
    "max": Part("train.model.max_fusion", "MaxFusion", "maximum of each feature (MVCNN)"),
    "concat": Part("train.model.concat_fusion", "ConcatFusion", "linear layer on the concatenated views"),
    "late": Part("train.model.mean_fusion", "LateFusion", "each view scored alone, probabilities averaged (MiT)"),
}
HEADS = {
    "mtgf": Part("train.model.mtgf", "TextGuidedFusion", "gated fusion of text and face (MTGF)"),
    "cosine": Part("train.model.mtgf", "CosineHead", "cosine of text and face"),
    "linear": Part("train.model.linear_head", "LinearHead", "linear classifier, no text"),
}
TASKS = {
    "classes": Part("train.tasks.single_label", "SingleLabel", "one of several classes"),
    "targets": Part("train.tasks.multi_label", "Emotions", "several emotions at once"),
    "aus": Part("train.tasks.multi_label", "ActionUnits", "several action units at once"),
    "au-intensity": Part("train.tasks.intensity", "Intensity", "intensities of action units, 0 to 5"),
}
LOSSES = {
    "con": Part("train.losses.consistency", "ConsistencyLoss", "consistency between views", "lambda_con", "consistency"),
    "vt": Part("train.losses.view_text", "ViewTextLoss", "text loss of each view", "lambda_vt", "view–text"),
    "margin": Part("train.losses.margin", "MarginLoss", "views of one face alike, different faces apart by a learned margin "
                   "(AffectVLM)"),
    "cross-correlation": Part("train.losses.cross_correlation", "CrossCorrelationLoss", "equal features of views agree, "
                              "different ones are uncorrelated (SMILE-VLM, Barlow Twins)"),
}  # fmt: skip

# The loss of the class scores, by its name in logs.
CLASS_LOSSES = {"ce": "cross-entropy", "bce": "binary cross-entropy"}


def find_part(table: Mapping[str, Part], name: str) -> Part:
    """Return the part of a table.

    Raises:
        FacetError: no part of this name; lists the names.
    """
    if name not in table:
        raise FacetError(f"{name!r} is not among {', '.join(table)}")
    return table[name]


def list_parts(table: Mapping[str, Part]) -> str:
    """Describe each part, for --help."""
    return "; ".join(f"{name}: {part.about}" for name, part in table.items())


def describe_loss(name: str) -> str:
    """Return the name of a term of the loss for people, with that in log.jsonl: `consistency (con)`."""
    title = CLASS_LOSSES.get(name) or (LOSSES[name].title if name in LOSSES else "")
    return f"{title} ({name})" if title else name


def list_extra_losses() -> dict[str, Part]:
    """Return the loss terms whose weights --extra-losses gives."""
    return {name: part for name, part in LOSSES.items() if not part.option}


def read_losses(texts: tuple[str, ...]) -> dict[str, float]:
    """Read `--extra-losses NAME=WEIGHT,…` as name → weight.

    Raises:
        FacetError: an unknown or repeated name, a term with an option of its own, or a weight outside 0…1000.
    """
    names = list_extra_losses()
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name in LOSSES and name not in names:
            raise FacetError(f"--extra-losses {text}: use --{LOSSES[name].option.replace('_', '-')}")
        if name not in names or name in weights:
            raise FacetError(f"--extra-losses {text}: expected NAME=WEIGHT, once each of {', '.join(names)}")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
        if not 0 < weights[name] <= 1e3:  # also refuses NaN
            raise FacetError(f"--extra-losses {text}: expected a weight above 0 and up to 1000")
    return weights


def collect_weights(settings: object) -> dict[str, float]:
    """Return name → weight of every loss term beside the loss of the class scores; 0: not computed.

    Args:
        settings: has the field of each term's own option, and `extra_losses`.
    """
    own = {name: float(getattr(settings, part.option)) for name, part in LOSSES.items() if part.option}
    return own | read_losses(settings.extra_losses)  # type: ignore[attr-defined]
