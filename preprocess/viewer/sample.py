"""A sample's page: every view, what a run predicted and attended to, neighbours, and all fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.attention import attention_section
from preprocess.viewer.parts import (
    Cell,
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
from preprocess.viewer.site import Site
from shared.modalities import NORMAL_LEGEND

NUM_NEIGHBOURS = 4  # on each side


def sample_page(site: Site, address: Address) -> list[Component]:
    row = address.row
    sample = site.cache.samples[row]
    warning = f"{'Warning' if sample.valid else 'Not valid'}: {sample.reason}"
    lit = _can_be_lit(site, row)
    return [
        _links(site, address),
        html.H1(sample.sample_id),
        _headline(site, row),
        tagger(site, row, full=True),
        *([html.P(warning, className="warning")] if sample.reason else []),
        *([scripted("light", "on", "light")] if lit else []),
        _pictures(site, row),
        *([html.P(NORMAL_LEGEND.capitalize() + ".", className="faint")] if lit else []),
        *attention_section(site, row, address),
        *_neighbours(site, row, address),
        html.H2("All fields"),
        table(["", ""], _fields(site, row), "facts"),
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
    said = [part for one in predicted(site, row) for part in (" ", one)]
    return html.P([*parts, *said], className="headline")


def _can_be_lit(site: Site, row: int) -> bool:
    """Tell whether the row has normals that a light can fall on; those of dynamic images are changes over time."""
    return site.faces and not site.cache.info.settings.dynamic and has_picture(site.cache.samples[row], "normal")


def _pictures(site: Site, row: int) -> Component:
    views, sample = site.cache.info.settings.views, site.cache.samples[row]

    def cell(kind: str, view: int) -> Component:
        if kind != "relief" or not _can_be_lit(site, row):
            return picture(site, row, kind, view)
        alt = f"{kind} of {sample.sample_id} at {views[view]}°"
        return scripted("relief", picture_address(row, "normal", view), "relief", alt=alt)

    rows = [[site.title(kind), *[cell(kind, view) for view in range(len(views))]] for kind in site.kinds()]
    return table(["", *map(view_title, views)], rows, "views")


def _neighbours(site: Site, row: int, address: Address) -> list[Component]:
    """Show the frames around this one, or the subject's other scans: wrong labels and mirrored scans stand out among them."""
    sample, samples = site.cache.samples[row], site.cache.samples
    rows: Sequence[int] = site.cache.frames(sample.sequence)
    if len(rows) > 1:
        wall, name = address.with_filters(sequence=sample.sequence), sample.sequence
        captions = {r: f"frame {samples[r].frame}" for r in rows}
    else:
        rows = site.catalogue.columns["subject"].rows(sample.subject).tolist()
        wall, name = address.with_filters(subject=sample.subject), sample.subject
        captions = {r: f"{samples[r].label or 'no label'} {samples[r].intensity}" for r in rows}
    if len(rows) < 2:
        return []
    index = list(rows).index(row)
    near = rows[max(index - NUM_NEIGHBOURS, 0) : index + NUM_NEIGHBOURS + 1]
    head = html.H2(["Others of ", dcc.Link(name, href="/" + wall.query())])
    return [head, strip([tile(site, r, address, caption=captions[r], marked=r == row) for r in near])]


def _fields(site: Site, row: int) -> list[list[Cell]]:
    """List every field of the tables, what was predicted, and the labels of a task with several."""
    sample, info, run = site.cache.samples[row], site.cache.info, site.run
    fields: list[list[Cell]] = [["row", str(row)]]
    for name in (field.name for field in dataclasses.fields(sample)):
        value = getattr(sample, name)
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else "" if value is None else str(value)
        fields += [[name, text]] if text else []
    fields += [[name, values[row]] for name, values in site.cache.groups.items() if values[row]]
    if prediction := run.predictions.get(row):
        names = "+".join(prediction.predicted) or "none"
        fields.append([f"predicted by {run.name}", f"{names}, {run.probability(prediction):.3f}"])
        if run.several:
            decisions = run.decide(prediction).items()
            fields.append(["compared with the truth", "; ".join(f"{name} {decision}" for name, decision in decisions)])
    for array, labels in (("aus", info.au_names), ("targets", info.target_names)):
        if sample.valid and labels:
            values = zip(labels, site.pictures.read(row, array), strict=True)
            fields.append([array, ", ".join(f"{label} {int(v)}" for label, v in values if v >= 0) or "unknown"])
    return fields
