"""Parts that several pages share: pictures, tiles, tables, links."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.pictures import choose_kind, has_picture
from preprocess.viewer.site import Site
from shared.pictures import centre_shift
from shared.schema import View

Cell = Component | str


def view_title(view: View) -> str:
    """Return where the camera stands: `20°, subject's left` shows more of the left cheek, on the right of the picture."""
    if view.yaw_deg:
        side = "subject's left" if view.yaw_deg > 0 else "subject's right"
    else:
        side = "front" if not view.pitch_deg else "above" if view.pitch_deg > 0 else "below"
    return f"{view}°, {side}"


def picture_address(row: int, kind: str, view: int) -> str:
    return f"/image/{row}/{kind}/{view}.png"


def sample_address(row: int, address: Address) -> str:
    """Return the address of a sample's page; it keeps the query, so that a link leads back to the same wall."""
    return f"/sample/{row}{address.query()}"


def picture(site: Site, row: int, kind: str, view: int) -> Component:
    """Show a picture of a row, or why there is none."""
    sample, size = site.cache.samples[row], str(site.cache.info.settings.size_px)
    if not site.faces:
        return html.Div("no faces", className="blank")
    if not sample.valid:
        return html.Div(sample.reason or "not valid", className="blank failed")
    if not has_picture(sample, kind):
        return html.Div(f"no {kind}", className="blank")
    alt = f"{kind} of {sample.sample_id} at {site.cache.info.settings.views[view]}°"
    return html.Img(src=picture_address(row, kind, view), alt=alt, width=size, height=size)


def centred(site: Site, view: int, parts: list[Component], style: str = "") -> Component:
    """Show pictures of a view, one over the other, with the face where it is from the front: the style sheet moves them."""
    right, down = centre_shift(site.cache.info.settings.views[view])
    moved = {"--right": f"{right:.2%}", "--down": f"{down:.2%}"}
    return html.Div(parts, className=f"moved {style}".rstrip(), style=moved)


def tile(
    site: Site,
    row: int,
    address: Address,
    *,
    caption: str | None = None,
    marked: bool = False,
    with_prediction: bool = True,
) -> Component:
    """Show a sample as one picture with its name, which links to its page.

    Args:
        caption: text in place of label and intensity.
    """
    sample = site.cache.samples[row]
    kind = choose_kind(sample, address.show) or address.show
    lines = [html.Span(caption or sample.label or "no label", className="label")]
    if sample.intensity and caption is None:
        lines.append(html.Span(f"intensity {sample.intensity}", className="level"))
    link = dcc.Link(
        [
            centred(site, site.view(address), [picture(site, row, kind, site.view(address))]),
            *lines,
            *(predicted(site, row) if with_prediction else []),
            html.Span(sample.sample_id, className="name"),
        ],
        href=sample_address(row, address),
        className="tile marked" if marked else "tile",
        title=sample.sample_id + (f": {sample.reason}" if sample.reason else ""),
    )
    return html.Div([link, tagger(site, row)], className="cell")


def tagger(site: Site, row: int, *, full: bool = False) -> Component:
    """Show the tags of a sample, and a button that adds one; key t.

    Args:
        full: with a field for the tag's word.
    """
    about: dict[str, Any] = {"row": row, "tags": site.tags.by_sample().get(site.cache.samples[row].sample_id, ())}
    if full:
        about["words"] = site.tags.options()[:-1]
    return scripted("tag", json.dumps(about), "tagger")


def run_query(site: Site) -> str:
    """Return the query of an address that depends on the run alone."""
    return Address(run=site.run.name if site.first else "").query()


def predicted(site: Site, row: int) -> list[Component]:
    """Show what the run predicted for a row, red if wrong; nothing if it was not tested."""
    found = site.run.predictions.get(row)
    if found is None:
        return []
    style = "wrong" if site.run.count_errors(found) else "right"
    parts: list[Component] = [html.Span(f"→ {site.run.summarise(found)}", className=style)]
    if not site.run.several:
        parts.append(html.Span(f"probability {site.run.probability(found):.2f}", className="level"))
    return parts


def strip(tiles: Sequence[Component]) -> Component:
    return html.Div(list(tiles), className="wall strip")


def number_link(number: int, address: Address, style: str = "") -> Component:
    """Show a number that links to its samples on the wall; a dot for 0."""
    if not number:
        return html.Span("·", className="off")
    return dcc.Link(f"{number:,}", href="/" + address.query(), className=style)


def scripted(
    script: str, value: str, class_name: str, children: list[Component] | None = None, **more: str
) -> Component:
    """Make an element that a script of assets/ fills in: the script reads `data-SCRIPT` and further data attributes."""
    data: dict[str, Any] = {f"data-{key}": text for key, text in {script: value, **more}.items()}
    return html.Div(children, className=class_name, **data)


def shade(cell: Component, style: str, fraction: float) -> Component:
    """Colour a cell of a table. style: "right" or "wrong". fraction: 0…1, how strongly."""
    colour = (
        f"color-mix(in srgb, var(--{'good' if style == 'right' else 'bad'}) {60 * fraction**0.5:.0f}%, transparent)"
    )
    return html.Div(cell, className="shade", style={"background": colour})


def bar(fraction: float) -> Component:
    return html.Div(html.Div(style={"width": f"{min(max(fraction, 0), 1):.1%}"}), className="part")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], class_name: str = "") -> Component:
    """Make a table of texts and components."""
    body = [html.Tr([html.Th(row[0]), *[html.Td(cell) for cell in row[1:]]]) for row in rows]
    shown = html.Table([html.Thead(html.Tr([html.Th(cell) for cell in head])), html.Tbody(body)], className=class_name)
    return html.Div(shown, className="scrolls")


def key_link(text: str, href: str, key: str) -> Component:
    """Make a link that a key follows, too: viewer.js finds it by its class."""
    return dcc.Link(text, href=href, className=f"key key-{key}", title=f"key: {key}")


def page_links(
    path: str, address: Address, num: int, *, field: str = "page", where: str = "", keys: bool = True
) -> Component:
    """Link to the first, previous, next and last of `num` pages, or of what another field of the address counts.

    Args:
        address: of the current page.
        where: text between the links; default: its number.
        keys: keys follow these links, too.
    """
    current: int = getattr(address, field)

    def link(text: str, index: int, key: str) -> Component:
        if not 0 <= index < num or index == current:
            return html.Span(text, className="off")
        href = path + dataclasses.replace(address, **{field: index}).query()  # type: ignore[arg-type]
        return key_link(text, href, key) if keys else dcc.Link(text, href=href)

    middle = html.Span(where or f"page {current + 1:,} of {num:,}", className="where")
    before = [link("⇤ first", 0, "Home"), link("← previous", current - 1, "PageUp")]
    after = [link("next →", current + 1, "PageDown"), link("last ⇥", num - 1, "End")]
    return html.Nav([*before, middle, *after], className="pages")
