"""The page of label noise: the samples whose label a cross-validated model doubts most."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.labels import ABSENT, PRESENT
from preprocess.viewer.parts import Cell, page_links, run_query, tile
from preprocess.viewer.run_records import ERRORS, RunRecords
from preprocess.viewer.site import Site
from shared.cache import Cache
from shared.pairs import group_pairs
from shared.runs import Prediction

PAGE_DOUBTS = 60
MAX_PAIRS = 12  # of label and suggestion that the summary counts
NOT_OUT_OF_SAMPLE = (
    "These are predictions of `predict`. A model doubts too few labels of people that it was trained on: give the run of "
    "`crossval` itself as --run, and its own cache."
)


@dataclass(frozen=True)
class Doubt:
    """A label that is probably wrong."""

    name: str  # of the item: a sample or a sequence
    label: str
    suggested: str
    class_name: str  # for several labels, the class in question; else ""
    label_probability: float
    suggested_probability: float
    num: int = 1  # frames of a sequence with the same doubt; this is the clearest


def noise_page(site: Site, address: Address) -> list[Component]:
    """List the doubted labels, the clearest first; each with a link to its sample and a button that tags it."""
    run, doubts = site.run, find_doubts(site.run, site.cache)
    num_pages = max(-(-len(doubts) // PAGE_DOUBTS), 1)
    address = dataclasses.replace(address, page=min(address.page, num_pages - 1))
    pairs = Counter(f"{doubt.class_name} {doubt.label} → {doubt.suggested}".strip() for doubt in doubts)
    counted = "; ".join(f"{pair}: {num}" for pair, num in pairs.most_common(MAX_PAIRS))
    wall: list[Cell] = ["Key t, or the button, tags a sample; ", dcc.Link("samples", href="/" + run_query(site))]
    tiles = [_show(site, address, doubt) for doubt in doubts[address.page * PAGE_DOUBTS :][:PAGE_DOUBTS]]
    return [
        html.H1(f"Labels that {run.name} doubts"),
        *([] if run.is_own_test else [html.P(NOT_OUT_OF_SAMPLE, className="notice")]),
        html.P(
            f"{len(doubts):,} labels are doubted, the clearest first: another class is more probable than it usually is where "
            "it is the label (confident learning, Northcutt, Jiang & Chuang 2021). Each model was tested on people it was not "
            f"trained on. {_describe_agreement(run)} Look at each sample: the model may be wrong, not the label. "
            "Captions: the label and the suggested class, each with its probability."
        ),
        *([html.P(counted + ("; …" if len(pairs) > MAX_PAIRS else "."))] if pairs else []),
        html.P([*wall, " filters by tags and lists them as CSV."], className="faint"),
        *([page_links("/noise", address, num_pages)] if num_pages > 1 else []),
        html.Div(tiles, className="wall") if tiles else html.P("No label is doubted.", className="notice"),
    ]


def _describe_agreement(run: RunRecords) -> str:
    if run.several:
        decisions = [decision for one in run.tested for decision in run.decide(one).values()]
        right, num = sum(decision not in ERRORS for decision in decisions), len(decisions)
    else:
        known = [one for one in run.tested if one.labels]
        right, num = sum(not run.count_errors(one) for one in known), len(known)
    return f"It agrees with {right:,} of {num:,} labels."


def find_confident(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the class that each item is confidently of, i64 (n,); its own label where no class is.

    Confident learning (Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in dataset labels",
    section 3.1): class j's threshold is the mean probability of j over the items labelled j. Of the classes whose threshold
    an item reaches, it is of the most probable one. Items of another class than their label are the off-diagonal of the
    confident joint.

    Args:
        probabilities: (n, C), of models that were not trained on the item. labels: i64 (n,).
    """
    classes = range(probabilities.shape[1])
    thresholds = np.array([probabilities[labels == c, c].mean() if (labels == c).any() else np.inf for c in classes])
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(reached.max(1) >= 0, reached.argmax(1), labels)


def find_doubts(run: RunRecords, cache: Cache) -> list[Doubt]:
    """Return the labels that a run doubts, those with the largest difference of probabilities first.

    An item that several rounds tested counts once, with its mean probabilities. Frames of a sequence with the same doubt are
    one entry.
    """
    items = _average_rounds(run.tested)
    found: list[Doubt] = []
    if run.several:
        for c, name in enumerate(run.class_names):
            known = [one for one in items if name not in one.unknown]
            yes = np.array([one.probabilities[c] for one in known])
            truth = np.array([int(name in one.labels) for one in known])
            found += _compare(known, np.stack([1 - yes, yes], axis=1), truth, (ABSENT, PRESENT), name)
    else:
        index = {name: c for c, name in enumerate(run.class_names)}
        known = [one for one in items if one.labels and one.labels[0] in index]
        truth = np.array([index[one.labels[0]] for one in known])
        found = _compare(known, np.array([one.probabilities for one in known]), truth, run.class_names, "")
    found.sort(key=lambda doubt: doubt.label_probability - doubt.suggested_probability)
    sequences = {sample.sample_id: sample.sequence for sample in cache.samples}
    groups = group_pairs(
        ((sequences.get(doubt.name) or doubt.name, doubt.class_name, doubt.label, doubt.suggested), doubt)
        for doubt in found
    )
    return [dataclasses.replace(group[0], num=len(group)) for group in groups.values()]


def _average_rounds(tested: Iterable[Prediction]) -> list[Prediction]:
    return [
        dataclasses.replace(some[0], probabilities=tuple(np.mean([one.probabilities for one in some], axis=0).tolist()))
        for some in group_pairs((one.name, one) for one in tested).values()
    ]


def _compare(
    items: Sequence[Prediction], probabilities: np.ndarray, labels: np.ndarray, words: Sequence[str], class_name: str
) -> list[Doubt]:
    """Return a doubt for each item that is confidently of another class than its label."""
    if not items:
        return []
    suggested = find_confident(probabilities, labels)
    return [
        Doubt(
            items[i].name,
            words[int(labels[i])],
            words[int(suggested[i])],
            class_name,
            float(probabilities[i, labels[i]]),
            float(probabilities[i, suggested[i]]),
        )
        for i in np.flatnonzero(suggested != labels).tolist()
    ]


def _show(site: Site, address: Address, doubt: Doubt) -> Component:
    """Show a doubt as a tile; of a sequence, the frame that weighs most, else the middle one."""
    frames = site.cache.frames(doubt.name)
    row = site.run.find_row(doubt.name)
    if row is None:
        row = frames[len(frames) // 2] if frames else site.cache.row_of(doubt.name)
    label = f"{doubt.class_name} {doubt.label}".strip()
    caption = f"{label} {doubt.label_probability:.2f}, {doubt.suggested} {doubt.suggested_probability:.2f}"
    caption += f"; {doubt.num} frames" if doubt.num > 1 else ""
    return tile(site, row, address.with_filters(), caption=caption, with_prediction=False)
