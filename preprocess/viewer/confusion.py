"""The confusion page: a run's confusion matrix, or TP, FN, FP and TN of each class; each number links to its samples."""

from __future__ import annotations

from collections import Counter

from dash import html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.parts import Cell, number_link, table
from preprocess.viewer.run_records import DECISIONS, ERRORS, TRUE_NEGATIVE, RunRecords
from preprocess.viewer.site import Site


def confusion_page(site: Site, address: Address) -> list[Component]:
    """Show everything the run was tested on; a sequence counts once, as in the run's report."""
    return _show_decisions(site, address) if site.run.several else _show_matrix(site, address)


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
    rows: list[list[Cell]] = []
    for label in classes:
        cells: list[Cell] = [label]
        for predicted in classes:
            wall = address.with_filters(label=label, predicted=predicted)
            cells.append(number_link(counts[label, predicted], wall, "right" if label == predicted else "wrong"))
        total = sum(counts[label, predicted] for predicted in classes)
        rows.append([*cells, f"{total:,}", f"{counts[label, label] / total:.3f}" if total else "–"])
    correct, total = sum(counts[name, name] for name in classes), counts.total()
    accuracy = f" (accuracy {correct / total:.3f})" if total else ""
    unknown = len(site.run.tested) - total
    return [
        html.H1(f"Confusion matrix of {site.run.name}"),
        html.P(
            f"{correct:,} of {total:,} {_describe_items(site)} are predicted correctly{accuracy}. "
            "Rows: true class. Columns: predicted class. Each number links to its samples."
        ),
        *([html.P(f"{unknown:,} more have no label, or one that this run does not know.")] if unknown else []),
        table(["", *classes, "all", "recall"], rows, "counts"),
    ]


def _show_decisions(site: Site, address: Address) -> list[Component]:
    counts = count_decisions(site.run)
    has_values = any("=" in name for one in site.run.tested for name in one.predicted)
    rows: list[list[Cell]] = []
    for name in site.run.class_names:
        cells: list[Cell] = [name]
        for decision in DECISIONS:
            number, wall = counts[name, decision], address.with_filters(predicted=f"{name} {decision}")
            if decision == TRUE_NEGATIVE and number:
                cells.append(html.Span(f"{number:,}", className="off"))
            else:
                cells.append(number_link(number, wall, "wrong" if decision in ERRORS else "right"))
        tp, fn, fp, _ = (counts[name, decision] for decision in DECISIONS)
        rows.append([*cells, f"{2 * tp / (2 * tp + fn + fp):.3f}" if tp + fn + fp else "–"])
    return [
        html.H1(f"Predictions of {site.run.name}, by class"),
        html.P(
            f"{len(site.run.tested):,} {_describe_items(site)}. A class counts only where its truth is known. "
            "TP: true positives, FN: false negatives (missed), FP: false positives, TN: true negatives. "
            "Each number links to its samples."
            + " A predicted or true intensity counts as shown from 1 on, rounded."
            * has_values
        ),
        table(["", *DECISIONS, "F1"], rows, "counts"),
    ]


def _describe_items(site: Site) -> str:
    sequences = {sequence.sequence for sequence in site.cache.sequences}
    if any(one.name in sequences for one in site.run.tested):
        return "sequences (each counts once, as in the run's report)"
    return "frames" if sequences else "scans"
