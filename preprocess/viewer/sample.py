"""A sample's page: every view with landmarks and attention, what runs predicted, all fields, and neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.attention import (
    attended,
    attention_details,
    attention_notes,
    compare_attention,
    find_record,
    has_maps,
)
from preprocess.viewer.labels import MAX_INTENSITY
from preprocess.viewer.landmarks import count_landmarks
from preprocess.viewer.parts import (
    Cell,
    bar,
    key_link,
    picture,
    picture_address,
    predicted,
    sample_address,
    scripted,
    strip,
    table,
    tagger,
    tile,
    view_title,
)
from preprocess.viewer.pictures import has_picture
from preprocess.viewer.run_records import ERRORS, TRUE_POSITIVE, AttentionRecord, RunRecords
from preprocess.viewer.site import Site
from shared.modalities import NORMAL_LEGEND
from shared.pairs import group_pairs
from shared.pictures import order_views
from shared.runs import Prediction

NUM_NEIGHBOURS = 4  # on each side


def sample_page(site: Site, address: Address) -> list[Component]:
    row = address.row
    sample = site.cache.samples[row]
    warning = f"{'Warning' if sample.valid else 'Not valid'}: {sample.reason}"
    record = find_record(site, row)
    lit = _can_be_lit(site, row)
    num_landmarks = count_landmarks(site, row)
    overlays = ["attention"] if has_maps(site, record) or has_maps(site, record, 0) else []
    overlays += ["landmarks"] if num_landmarks else []
    controls = [scripted("light", "on", "light")] if lit else []
    controls += [scripted("overlay", " ".join(overlays), "light")] if overlays else []
    left = [
        html.Div(controls, className="controls"),
        _pictures(site, row, record, with_landmarks=num_landmarks > 0),
        *([html.P(NORMAL_LEGEND.capitalize() + ".", className="faint")] if lit else []),
        *attention_notes(site, row, record, address),
    ]
    return [
        _links(site, address),
        html.H1(sample.sample_id),
        _headline(site, row),
        tagger(site, row, full=True),
        *([html.P(warning, className="warning")] if sample.reason else []),
        html.Div([html.Div(left), html.Div([*_predictions(site, row), *_facts(site, row)])], className="sample"),
        *compare_attention(site, row),
        *_neighbours(site, row, address),
        *attention_details(site, row, record),
    ]


def _links(site: Site, address: Address) -> Component:
    """Link to the wall, to the rows before and after among those that pass its filters, and to the player."""
    row, rows = address.row, site.catalogue.find_rows(address)
    if address.sort:
        at = np.flatnonzero(rows == row)
        before, after = (int(at[0]) - 1, int(at[0]) + 1) if len(at) else (-1, -1)
    else:  # also of a row that the filters leave out
        before, after = int(np.searchsorted(rows, row)) - 1, int(np.searchsorted(rows, row, side="right"))
    links = [key_link("↑ wall", "/" + address.query(), "Escape")]
    for text, index, key in (("← previous", before, "ArrowLeft"), ("next →", after, "ArrowRight")):
        if 0 <= index < len(rows):
            links.append(key_link(text, sample_address(int(rows[index]), address), key))
        else:
            links.append(html.Span(text, className="off"))
    if site.cache.samples[row].sequence:
        links.append(key_link("▶ play", f"/play/{row}{address.query()}", "p"))
    return html.Nav(links, className="pages")


def _headline(site: Site, row: int) -> Component:
    """Show label, intensity, subject and prediction."""
    sample = site.cache.samples[row]
    parts: list[Cell] = [html.Strong(sample.label or "no label")]
    parts += [html.Span(f" · intensity {sample.intensity}")] if sample.intensity else []
    parts += [html.Span(f" · subject {sample.subject}")] if sample.subject else []
    predictions = [part for one in predicted(site, row) for part in (" ", one)]
    return html.P([*parts, *predictions], className="headline")


def _can_be_lit(site: Site, row: int) -> bool:
    """Tell whether the row has normals that a light can fall on; those of dynamic images are changes over time."""
    return site.faces and not site.cache.info.settings.dynamic and has_picture(site.cache.samples[row], "normal")


def _pictures(site: Site, row: int, record: AttentionRecord | None, *, with_landmarks: bool) -> Component:
    """Show every view, with attention and landmarks over it."""
    views, sample = site.cache.info.settings.views, site.cache.samples[row]

    def cell(kind: str, view: int) -> Component:
        shown = picture(site, row, kind, view)
        if kind == "relief" and _can_be_lit(site, row):
            alt = f"{kind} of {sample.sample_id} at {views[view]}°"
            shown = scripted("relief", picture_address(row, "normal", view), "relief", alt=alt)
        parts = [shown]
        if with_landmarks and has_picture(sample, kind):
            parts.append(html.Img(src=f"/landmarks/{row}/{view}.svg", alt="landmarks", className="landmarks"))
        return html.Div(attended(site, row, record, kind, view, parts), className="attended")

    order = order_views(views)
    rows = [[site.title(kind), *[cell(kind, view) for view in order]] for kind in site.kinds()]
    is_attended = record is not None and record.frame is not None
    return table(
        ["", *[view_title(views[view]) for view in order]], rows, "views attended-views" if is_attended else "views"
    )


def _predictions(site: Site, row: int) -> list[Component]:
    """Show the probabilities of every run that tested a row: a table per list of classes, a column per run."""
    groups = group_pairs((run.class_names, run) for run in site.runs if row in run.predictions)
    parts: list[Component] = []
    for class_names, runs in groups.items():
        labels = [] if runs[0].several else runs[0].predictions[row].labels
        rows = [
            [
                html.B(f"{name} (label)") if name in labels else name,
                *[_probability(run, run.predictions[row], c) for run in runs],
            ]
            for c, name in enumerate(class_names)
        ]
        parts.append(table(["", *[run.name for run in runs]], rows, "predictions"))
    return [html.H2("Predictions"), *parts] if parts else []


def _probability(run: RunRecords, prediction: Prediction, c: int) -> Component:
    """Show a probability as a bar, and whether the decision is right."""
    name, probability = run.class_names[c], prediction.probabilities[c]
    if run.several:
        mark = run.decide(prediction).get(name, "")
        style = "wrong" if mark in ERRORS else "right" if mark == TRUE_POSITIVE else "faint"
    else:
        mark = "predicted" if name in prediction.predicted else ""
        style = "wrong" if run.count_errors(prediction) else "right"
    number = f"{MAX_INTENSITY * probability:.2f}" if run.levels else f"{probability:.3f}"
    parts = [bar(probability), html.Span(number), html.Span(mark, className=style)]
    return html.Div(parts, className="probability")


def _neighbours(site: Site, row: int, address: Address) -> list[Component]:
    """Show the frames around this one, or the subject's other scans: wrong labels and mirrored scans stand out among them."""
    sample, samples = site.cache.samples[row], site.cache.samples
    rows: Sequence[int] = site.cache.frames(sample.sequence)
    if len(rows) > 1:
        wall, name = address.with_filters(sequence=sample.sequence), sample.sequence
        captions = {r: f"frame {samples[r].frame}" for r in rows}
    else:
        rows = site.catalogue.filters["subject"].rows(sample.subject).tolist()
        wall, name = address.with_filters(subject=sample.subject), sample.subject
        captions = {r: f"{samples[r].label or 'no label'} {samples[r].intensity}" for r in rows}
    if len(rows) < 2:
        return []
    index = list(rows).index(row)
    near = rows[max(index - NUM_NEIGHBOURS, 0) : index + NUM_NEIGHBOURS + 1]
    head = html.H2(["Others of ", dcc.Link(name, href="/" + wall.query())])
    return [head, strip([tile(site, r, address, caption=captions[r], marked=r == row) for r in near])]


def _facts(site: Site, row: int) -> list[Component]:
    """List every field of the tables, and the labels of a task with several."""
    sample = site.cache.samples[row]
    fields: list[list[Cell]] = [["row", str(row)]]
    for name in (field.name for field in dataclasses.fields(sample)):
        value = getattr(sample, name)
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else "" if value is None else str(value)
        fields += [[name, text]] if text else []
    fields += [[name, values[row]] for name, values in site.cache.groups.items() if values[row]]
    if site.labels.shown and sample.valid:
        fields.append(["shows", ", ".join(site.labels.describe(row))])
    return [html.H2("All fields"), table(["", ""], fields, "facts")]
