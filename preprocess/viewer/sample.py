"""A sample's page: every view in texture, relief and depth, what is known of it, its neighbours; a sequence's player."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.attention_section import attention_section
from preprocess.viewer.pictures import MODALITY_OF, has_picture, shown_kind
from preprocess.viewer.site import (
    Site,
    key_link,
    picture,
    picture_address,
    sample_address,
    scripted,
    table,
    tile,
    view_title,
)
from shared.modalities import MODALITIES, NORMAL_LEGEND
from shared.schema import Sequence

NEIGHBOURS = 4  # frames on each side
DEFAULT_RATE = 25.0
RATES = (1, 5, 10, 25, 50)


def sample_page(site: Site, row: int, address: Address) -> list[Component]:
    sample = site.cache.samples[row]
    same = _frames(site, row)
    return [
        _path(site, row, address),
        html.H1(sample.sample_id),
        html.P(_said(site, row), className="said"),
        *(
            [html.P(f"{'Warning' if sample.valid else 'Not valid'}: {sample.reason}", className="warning")]
            * bool(sample.reason)
        ),
        *([scripted("light", "on", "light")] if _lightable(site, row) else []),
        _pictures(site, row),
        *attention_section(site, row, address),
        *(_neighbours(site, row, same, address) if len(same) > 1 else _same_subject(site, row, address)),
        html.H2("What is known"),
        table(["", ""], _facts(site, row), class_name="facts"),
    ]


def player_page(site: Site, row: int, address: Address) -> list[Component]:
    """The valid frames of the sequence that a row belongs to, one after the other."""
    sample = site.cache.samples[row]
    name = sample.sequence
    if not name:
        back = key_link("↑ sample", sample_address(row, address), "Escape")
        alone = html.P("A single scan: there is nothing to play.", className="notice")
        return [html.Nav([back], className="pages"), html.H1(sample.sample_id), alone]
    frames = _frames(site, row)
    kinds = [k for k in site.kinds() if any(has_picture(site.cache.samples[r], k) for r in frames)]
    playable = [r for r in frames if shown_kind(site.cache.samples[r], "texture")]
    sequence = _sequence(site, name)
    rate = sequence.frames_per_second if sequence and sequence.frames_per_second else DEFAULT_RATE
    marks = {
        str(getattr(sequence, mark)): mark
        for mark in ("onset", "apex", "offset")
        if sequence and getattr(sequence, mark) is not None
    }
    film = {
        "rows": playable,
        "frames": [site.cache.samples[r].frame for r in playable],
        "start": playable.index(row) if row in playable else 0,
        "kinds": kinds,
        "kind": address.show if address.show in kinds else (kinds or [""])[0],
        "views": [view_title(view) for view in site.cache.info.settings.views],
        "view": site.view(address),
        "rate": rate,
        "rates": sorted({*RATES, round(rate, 3)}),
        "marks": marks,
    }
    missing = len(frames) - len(playable)
    return [
        html.Nav([key_link("↑ sample", sample_address(row, address), "Escape")], className="pages"),
        html.H1(name),
        scripted("player", json.dumps(film), "player")
        if site.faces and playable
        else html.P("No faces are shown." if playable else "No frame is valid.", className="notice"),
        html.P(
            f"{len(playable)} frames"
            + (f", {missing} not valid" if missing else "")
            + (f"; {rate:g} a second" if sequence and sequence.frames_per_second else "; the rate is not known")
            + (f"; {', '.join(marks.values())}: {sequence.marks}" if sequence and marks and sequence.marks else "")
        ),
    ]


def _frames(site: Site, row: int) -> list[int]:
    """The rows of the same sequence in time order; the row alone where it is a single scan."""
    return list(site.cache.frames(site.cache.samples[row].sequence)) or [row]


def _sequence(site: Site, name: str) -> Sequence | None:
    return next((s for s in site.cache.sequences if s.sequence == name), None)


def _path(site: Site, row: int, address: Address) -> Component:
    """Back to the wall, and to the rows before and after among those that pass its filters."""
    rows = site.catalogue.find_rows(address)
    after = int(np.searchsorted(rows, row))
    before = after - 1
    after += after < len(rows) and int(rows[after]) == row
    links = [key_link("↑ wall", "/" + address.query(), "Escape")]
    for text, place, key in (("← previous", before, "ArrowLeft"), ("next →", after, "ArrowRight")):
        known = 0 <= place < len(rows)
        link = key_link(text, sample_address(int(rows[place]), address), key) if known else None
        links.append(link or html.Span(text, className="off"))
    if site.cache.samples[row].sequence:
        links.append(key_link("▶ play", f"/play/{row}{address.query()}", "p"))
    return html.Nav(links, className="pages")


def _lightable(site: Site, row: int) -> bool:
    normals = not site.cache.info.settings.dynamic  # those of dynamic images are changes, no directions
    return site.faces and normals and has_picture(site.cache.samples[row], "normal")


def _pictures(site: Site, row: int) -> Component:
    views = site.cache.info.settings.views
    sample = site.cache.samples[row]
    rows: list[list[Component | str]] = []
    dynamic = bool(site.cache.info.settings.dynamic)
    for kind in site.kinds():
        cells: list[Component | str] = [MODALITIES[MODALITY_OF[kind]].title(dynamic=dynamic)]
        for view, angle in enumerate(views):
            alt = f"{kind} of {sample.sample_id} at {angle}°"
            if kind == "relief" and _lightable(site, row):
                cells.append(scripted("relief", picture_address(row, "normal", view), "relief", alt=alt))
            else:
                cells.append(picture(site, row, kind, view, alt))
        rows.append(cells)
    shown = table(["", *[view_title(view) for view in views]], rows, class_name="views")
    legend = [html.P(NORMAL_LEGEND.capitalize() + ".", className="faint")] if _lightable(site, row) else []
    return html.Div([shown, *legend])


def _neighbours(site: Site, row: int, same: list[int], address: Address) -> list[Component]:
    place = same.index(row)
    near = same[max(place - NEIGHBOURS, 0) : place + NEIGHBOURS + 1]
    tiles = [tile(site, r, address, caption=f"frame {site.cache.samples[r].frame}", marked=r == row) for r in near]
    name = site.cache.samples[row].sequence
    return [
        html.H2(["Neighbours in ", dcc.Link(name, href="/" + address.filtered_by(sequence=name).query())]),
        html.Div(tiles, className="wall strip"),
    ]


def _same_subject(site: Site, row: int, address: Address) -> list[Component]:
    """The scans before and after of one person: a wrong label, a mirrored scan or somebody else's looks odd among them."""
    subject = site.cache.samples[row].subject
    rows = site.catalogue.columns["subject"].rows(subject)
    if len(rows) < 2 or not subject:
        return []
    place = int(np.searchsorted(rows, row))
    near = rows[max(place - NEIGHBOURS, 0) : place + NEIGHBOURS + 1].tolist()
    tiles = [tile(site, r, address, caption=_described(site, r), marked=r == row) for r in near]
    return [
        html.H2(["Others of ", dcc.Link(subject, href="/" + address.filtered_by(subject=subject).query())]),
        html.Div(tiles, className="wall strip"),
    ]


def _described(site: Site, row: int) -> str:
    sample = site.cache.samples[row]
    return " ".join([sample.label or "no label", sample.intensity])


def _said(site: Site, row: int) -> list[Component | str]:
    """What matters most, above the pictures: the label, and what a run says."""
    sample, said = site.cache.samples[row], site.catalogue.predictions.get(row)
    parts: list[Component | str] = [html.Strong(sample.label or "no label")]
    parts += [html.Span(f" · intensity {sample.intensity}")] if sample.intensity else []
    parts += [html.Span(f" · subject {sample.subject}")] if sample.subject else []
    if said:
        wrong = said.num_wrong(sample.label) > 0
        parts.append(html.Span(f" → {said.summary()}", className="wrong" if wrong else "right"))
    return parts


def _facts(site: Site, row: int) -> list[list[Component | str]]:
    sample = site.cache.samples[row]
    facts: list[list[Component | str]] = [["row", str(row)]]
    for field in dataclasses.fields(sample):
        value = getattr(sample, field.name)
        text = "yes" if value is True else "no" if value is False else "" if value is None else str(value)
        if text:
            facts.append([field.name, text])
    facts += [[name, values[row]] for name, values in site.cache.groups.items() if values[row]]
    said = site.catalogue.predictions.get(row)
    if said:
        facts.append([f"predicted by {site.run}", f"{said.class_name}, {said.probability:.3f}"])
        if said.several:
            facts.append(["of what is known", "; ".join(f"{name} {decision}" for name, decision in said.decisions)])
    if sample.valid:
        for name, labels in (("aus", site.cache.info.au_names), ("targets", site.cache.info.target_names)):
            if labels:
                values = site.pictures.read(row, name)
                known = [f"{label} {int(v)}" for label, v in zip(labels, values, strict=True) if v >= 0]
                facts.append([name, ", ".join(known) or "unknown"])
    return facts
