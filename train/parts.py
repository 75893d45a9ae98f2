"""The model's parts by name: what `--fusion`, `--head` and `--extra-losses` take.

A new part is one file, with its class, and one line here. Imports nothing heavy: --help lists them without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from shared.errors import FacetError


@dataclass(frozen=True)
class Part:
    """Where a part's class is, and what --help says of it."""

    module: str
    class_name: str
    about: str

    def load(self) -> Any:
        """The class: a Fusion, a Head or a LossTerm."""
        return getattr(import_module(self.module), self.class_name)


FUSIONS = {
    "cvsa": Part("train.model.cvsa", "CrossViewAttention", "attention between views (CVSA)"),
    "mean": Part("train.model.cvsa", "MeanFusion", "their mean"),
    "max": Part("train.model.max_fusion", "MaxFusion", "the largest value of each dimension (MVCNN)"),
    "concat": Part("train.model.concat_fusion", "ConcatFusion", "a linear layer on all of them side by side"),
    "late": Part("train.model.late_fusion", "LateFusion", "each view scored alone, probabilities averaged (MiT)"),
}
HEADS = {
    "mtgf": Part("train.model.mtgf", "TextGuidedFusion", "gated fusion of text and face (MTGF)"),
    "cosine": Part("train.model.mtgf", "CosineHead", "the cosine of text and face"),
    "linear": Part("train.model.linear_head", "LinearHead", "a linear classifier, no text"),
}
LOSSES = {
    "con": Part("train.losses.consistency", "ConsistencyLoss", "what --lambda-con weighs"),
    "vt": Part("train.losses.view_text", "ViewTextLoss", "what --lambda-vt weighs"),
    "margin": Part("train.losses.margin", "MarginLoss", "views of a face alike, other faces apart by a learned margin "
                   "(AffectVLM)"),
    "cross-correlation": Part("train.losses.cross_correlation", "CrossCorrelationLoss", "dimensions agree between views and "
                              "say different things (SMILE-VLM, Barlow Twins)"),
}  # fmt: skip
WITH_OPTION = ("con", "vt")  # of LOSSES: have an option of their own


def find_part(table: Mapping[str, Part], name: str) -> Part:
    """
    Raises:
        FacetError: no part of this name; tells those that there are.
    """
    if name not in table:
        raise FacetError(f"{name!r} is not among {', '.join(table)}")
    return table[name]


def list_parts(table: Mapping[str, Part]) -> str:
    """For --help: each name with what it is."""
    return "; ".join(f"{name}: {part.about}" for name, part in table.items())


def read_losses(texts: tuple[str, ...]) -> dict[str, float]:
    """`--extra-losses NAME=WEIGHT,…` as name → weight.

    Raises:
        FacetError: an unknown name, one given twice or with an option of its own, or no weight above 0.
    """
    names = [name for name in LOSSES if name not in WITH_OPTION]
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name in WITH_OPTION:
            raise FacetError(f"--extra-losses {text}: use --lambda-{name}")
        if name not in names or name in weights:
            raise FacetError(f"--extra-losses {text}: expected NAME=WEIGHT, once each of {', '.join(names)}")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
        if not 0 < weights[name] <= 1e3:  # also refuses NaN
            raise FacetError(f"--extra-losses {text}: expected a weight above 0 and up to 1000")
    return weights
