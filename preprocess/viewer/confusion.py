"""The confusion page: a run's confusion matrix, or TP, FN, FP and TN of each class, with totals; numbers link to samples."""

from __future__ import annotations

from collections import Counter

from dash import html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.parts import Cell, number_link, shade, table
from preprocess.viewer.run_records import DECISIONS, ERRORS, RunRecords
from preprocess.viewer.site import Site

NOT_A_TEST = (
    "These are predictions of `predict`, not the test of the run. If the model was trained on some of these people, the scores "
    "are higher than on unseen people."
)


def confusion_page(site: Site, address: Address) -> list[Component]:
    """Show everything the run was tested on; a sequence counts once, as in the run's report."""
    title, *rest = _show_decisions(site, address) if site.run.several else _show_matrix(site, address)
    return [title, *([] if site.run.is_own_test else [html.P(NOT_A_TEST, className="notice")]), *rest]


def count_confusions(run: RunRecords) -> Counter[tuple[str, str]]:
    """Count (true class, predicted class) over the tested items with a label that the run knows."""
    return Counter(
        (one.labels[0], one.predicted[0])
        for one in run.tested
        if not run.several and one.labels and one.labels[0] in run.class_names
    )


def count_decisions(run: RunRecords) -> Counter[tuple[str, str]]:
    """Count (class, one of DECISIONS) over the tested items whose truth is known."""
    return Counter(decision for one in run.tested for decision in run.decide(one).items())


def _show_matrix(site: Site, address: Address) -> list[Component]:
    counts, classes = count_confusions(site.run), site.run.class_names
    by_label = {name: sum(counts[name, predicted] for predicted in classes) for name in classes}
    by_predicted = {name: sum(counts[label, name] for label in classes) for name in classes}

    def cell(label: str, predicted: str) -> Component:
        number, wall = counts[label, predicted], address.with_filters(label=label, predicted=predicted)
        style = "right" if label == predicted else "wrong"
        return shade(number_link(number, wall, style), style, number / max(by_label[label], 1))

    rows: list[list[Cell]] = [
        [
            label,
            *[cell(label, predicted) for predicted in classes],
            f"{by_label[label]:,}",
            _percent(counts[label, label], by_label[label]),
        ]
        for label in classes
    ]
    correct, total = sum(counts[name, name] for name in classes), counts.total()
    rows.append(["all", *[f"{by_predicted[name]:,}" for name in classes], f"{total:,}", ""])
    precision = [_percent(counts[name, name], by_predicted[name]) for name in classes]
    rows.append(["precision, %", *precision, "", _percent(correct, total)])
    accuracy = f" (accuracy {_percent(correct, total)} %)" if total else ""
    unknown = len(site.run.tested) - total
    return [
        html.H1(f"Confusion matrix of {site.run.name}"),
        html.P(
            f"{correct:,} of {total:,} {_describe_items(site)} are predicted correctly{accuracy}. "
            "Rows: true class. Columns: predicted class. Each number links to its samples. "
            "Colours: fraction of the true class. Lower right: accuracy."
        ),
        *([html.P(f"{unknown:,} more have no label, or one that this run does not know.")] if unknown else []),
        table(["", *classes, "all", "recall, %"], rows, "counts confusion"),
    ]


def _show_decisions(site: Site, address: Address) -> list[Component]:
    counts = count_decisions(site.run)

    def score(tp: int, fn: int, fp: int, tn: int) -> list[Cell]:
        scores = _percent(tp, tp + fn), _percent(tp, tp + fp), _percent(2 * tp, 2 * tp + fn + fp)
        return [f"{tp + fn:,}", f"{tp + fn + fp + tn:,}", *scores]

    rows: list[list[Cell]] = []
    for name in site.run.class_names:
        tp, fn, fp, tn = numbers = [counts[name, decision] for decision in DECISIONS]
        cells: list[Cell] = []
        for decision, number, of in zip(DECISIONS, numbers, (tp + fn, tp + fn, fp + tn), strict=False):
            style = "wrong" if decision in ERRORS else "right"
            link = number_link(number, address.with_filters(predicted=f"{name} {decision}"), style)
            cells.append(shade(link, style, number / max(of, 1)))
        negatives = html.Span(f"{tn:,}", className="off")  # which the wall has no filter for
        rows.append([name, *cells, negatives, *score(*numbers)])
    totals = [sum(counts[name, decision] for name in site.run.class_names) for decision in DECISIONS]
    rows.append(["all", *[f"{total:,}" for total in totals], *score(*totals)])
    levels = "A unit counts as present from intensity 1 (predicted: from 0.5). " if site.run.levels else ""
    return [
        html.H1(f"Predictions of {site.run.name}, by class"),
        html.P(
            f"{len(site.run.tested):,} {_describe_items(site)}. A class counts only where its truth is known. {levels}"
            "TP: true positives, FN: false negatives (missed), FP: false positives, TN: true negatives. "
            "Each number links to its samples. Colours: fraction of the positives (TP, FN) or of the negatives (FP). "
            "Last row: of all decisions together (micro-average)."
        ),
        table(["", *DECISIONS, "positives", "known", "recall, %", "precision, %", "F1, %"], rows, "counts confusion"),
    ]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"


def _describe_items(site: Site) -> str:
    sequences = {sequence.sequence for sequence in site.cache.sequences}
    if any(one.name in sequences for one in site.run.tested):
        return "sequences (each counts once, as in the run's report)"
    return "frames" if sequences else "scans"
