"""A run's confusion matrix, counted as its report counts; each cell leads to its samples."""

from __future__ import annotations

from collections import Counter

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.catalogue import DECISIONS, FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_NEGATIVE
from preprocess.viewer.site import Site, table


def confusion_page(site: Site, address: Address) -> list[Component]:
    """True and predicted classes of everything the run was tested on; a sequence counts once, as in its report."""
    tested = site.catalogue.tested
    if any(said.several for said in tested):
        return _decisions_page(site, address)
    counts = count_confusions(site)
    classes = list(next(iter(tested)).class_names) if tested else []
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
        total, hits = sum(counts[label, predicted] for predicted in classes), counts[label, label]
        rows.append([*cells, f"{total:,}", f"{hits / total:.3f}" if total else "–"])
    right, total = sum(n for (a, b), n in counts.items() if a == b), sum(counts.values())
    share = f", {right / total:.3f}" if total else ""
    left_out = len(tested) - total
    return [
        html.H1(f"Confusion matrix of {site.run}"),
        html.P(
            f"{right:,} of {total:,} {_unit(site)} are predicted correctly{share}{_tell_unit(site)}. "
            "Rows: the true class. Columns: the prediction. A number leads to its samples."
        ),
        *([html.P(f"{left_out:,} more have no label, or one that this run does not know.")] if left_out else []),
        table(["", *classes, "all", "recall"], rows, class_name="counts"),
    ]


def _decisions_page(site: Site, address: Address) -> list[Component]:
    """Several classes at once: each is a question of its own."""
    tested, counts = site.catalogue.tested, count_decisions(site)
    rows: list[list[Component | str]] = []
    for name in tested[0].class_names:
        cells: list[Component | str] = [name]
        for decision in DECISIONS:
            number = counts[name, decision]
            there = address.filtered_by(predicted=f"{name} {decision}")
            style = "wrong" if decision in (FALSE_NEGATIVE, FALSE_POSITIVE) else "right"
            leads = number and decision != TRUE_NEGATIVE
            cells.append(
                dcc.Link(f"{number:,}", href="/" + there.query(), className=style)
                if leads
                else html.Span(f"{number:,}" if number else "·", className="off")
            )
        tp, fn, fp, _ = (counts[name, decision] for decision in DECISIONS)
        f1 = f"{2 * tp / (2 * tp + fn + fp):.3f}" if tp + fn + fp else "–"
        rows.append([*cells, f1])
    return [
        html.H1(f"Predictions of {site.run}, class by class"),
        html.P(
            f"{len(tested):,} {_unit(site)}{_tell_unit(site)}; where the truth of a class is not known, it does not count. "
            "TP: true positives, FN: false negatives (missed), FP: false positives, TN: true negatives. A number leads to its "
            "samples."
        ),
        table(["", *DECISIONS, "F1"], rows, class_name="counts"),
    ]


def count_decisions(site: Site) -> Counter[tuple[str, str]]:
    """(class, one of DECISIONS) → how often."""
    return Counter(decision for said in site.catalogue.tested for decision in said.decisions)


def count_confusions(site: Site) -> Counter[tuple[str, str]]:
    """(true class, prediction) → how often, of what is labelled with one of the run's classes."""
    return Counter((said.label, said.class_name) for said in site.catalogue.tested if said.label in said.class_names)


def _unit(site: Site) -> str:
    if any(said.of_sequence for said in site.catalogue.tested):
        return "sequences"
    return "frames" if site.cache.sequences else "scans"


def _tell_unit(site: Site) -> str:
    return " (each counts once, with all of its frames, as in the run's report)" * (_unit(site) == "sequences")
