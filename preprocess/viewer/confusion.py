"""A run's confusion matrix, each cell a way to the samples it counts."""

from __future__ import annotations

from collections import Counter

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.catalogue import DECISIONS, FALSE_ALARM, MISSED, RIGHTLY_NOT
from preprocess.viewer.site import Site, table


def confusion_page(site: Site, address: Address) -> list[Component]:
    """Rows of the cache by label and prediction. Frames count each, so numbers may differ from a test on sequences."""
    if any(said.several for said in site.catalogue.predictions.values()):
        return _decisions_page(site, address)
    counts = count_confusions(site)
    names = set(site.cache.info.class_names) | {name for pair in counts for name in pair}
    classes = [*site.cache.info.class_names, *sorted(names - set(site.cache.info.class_names))]
    rows: list[list[Component | str]] = []
    for label in classes:
        cells: list[Component | str] = [label]
        for predicted in classes:
            number = counts[label, predicted]
            there = address.filtered_by(label=label, predicted=predicted)
            style = "right" if label == predicted else "wrong"
            cells.append(
                dcc.Link(f"{number:,}", href="/" + there.query(), className=style)
                if number
                else html.Span("·", className="off")
            )
        rows.append(cells)
    right, total = sum(n for (a, b), n in counts.items() if a == b), sum(counts.values())
    share = f", {right / total:.3f}" if total else ""
    return [
        html.H1(f"What {site.run} says"),
        html.P(
            f"{right:,} of {total:,} labelled rows are named right{share}; each frame of a sequence counts. "
            "Rows: the label. Columns: the prediction. A number leads to its samples."
        ),
        table(["", *classes], rows, class_name="counts"),
    ]


def _decisions_page(site: Site, address: Address) -> list[Component]:
    """Several classes at once: each is a question of its own."""
    counts = count_decisions(site)
    classes = next(iter(site.catalogue.predictions.values())).class_names
    rows: list[list[Component | str]] = []
    for name in classes:
        cells: list[Component | str] = [name]
        for decision in DECISIONS:
            number = counts[name, decision]
            there = address.filtered_by(predicted=f"{name} {decision}")
            style = "wrong" if decision in (MISSED, FALSE_ALARM) else "right"
            leads = number and decision != RIGHTLY_NOT
            cells.append(
                dcc.Link(f"{number:,}", href="/" + there.query(), className=style)
                if leads
                else html.Span(f"{number:,}" if number else "·", className="off")
            )
        found, missed, alarms, _ = (counts[name, decision] for decision in DECISIONS)
        f1 = f"{2 * found / (2 * found + missed + alarms):.3f}" if found + missed + alarms else "–"
        rows.append([*cells, f1])
    return [
        html.H1(f"What {site.run} says"),
        html.P(
            "Each class is said or not of each row whose truth is known; each frame of a sequence counts. "
            "A number leads to its samples."
        ),
        table(["", *DECISIONS, "F1"], rows, class_name="counts"),
    ]


def count_decisions(site: Site) -> Counter[tuple[str, str]]:
    """(class, one of DECISIONS) → the number of rows."""
    return Counter(decision for said in site.catalogue.predictions.values() for decision in said.decisions)


def count_confusions(site: Site) -> Counter[tuple[str, str]]:
    """(label, prediction) → the number of labelled rows."""
    samples = site.cache.samples
    return Counter(
        (samples[row].label, said.class_name) for row, said in site.catalogue.predictions.items() if samples[row].label
    )
