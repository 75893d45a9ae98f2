"""The wall: sixty samples a page, filtered. Only the rows that are shown are looked at."""

from __future__ import annotations

import dataclasses
import json

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import FILTERS, VALIDITIES, Address
from preprocess.viewer.site import Site, page_links, scripted, tile, view_title
from shared.modalities import MODALITIES

PAGE_ROWS = 60
TITLES = {
    "subject": "subject",
    "label": "label",
    "intensity": "intensity",
    "sequence": "sequence",
    "validity": "valid or not",
    "predicted": "predicted",
    "group": "group",
}


def wall_page(site: Site, address: Address) -> list[Component]:
    """The wall at an address; a page number past the end shows the last page."""
    rows = site.catalogue.find_rows(address)
    num_pages = max(-(-len(rows) // PAGE_ROWS), 1)
    page = min(address.page, num_pages - 1)
    here = dataclasses.replace(address, page=page)
    shown = rows[page * PAGE_ROWS : (page + 1) * PAGE_ROWS].tolist()
    return [
        html.H1(f"{len(rows):,} of {len(site.cache.samples):,} samples", className="small"),
        _controls(site, here),
        page_links("/", here, num_pages),
        html.Div([tile(site, row, here) for row in shown], className="wall")
        if shown
        else html.P(["Nothing passes these filters. ", dcc.Link("Show everything", href="/")], className="notice"),
        page_links("/", here, num_pages, keys=False) if num_pages > 1 else html.Div(),
    ]


def _controls(site: Site, address: Address) -> Component:
    """The filters, and for viewer.js what they stand at."""
    columns = site.catalogue.columns
    found = []
    for name in FILTERS:
        options = list(VALIDITIES) if name == "validity" else columns[name].options()
        value = getattr(address, name)
        if value and value not in options:
            options.append(value)  # an old link: say what it asks for
        offered = len(options) > 1 or bool(value)
        found.append(_choice(f"filter-{name}", TITLES[name], options, value, hidden=not offered))
    relief = MODALITIES["normal"].title(dynamic=bool(site.cache.info.settings.dynamic))
    kinds = [relief if kind == "relief" else kind for kind in site.kinds()]
    found.append(_choice("filter-show", "picture", site.kinds(), address.show, titles=kinds, clearable=False))
    numbers = [str(number) for number in range(len(site.cache.info.settings.views))]
    titles = [view_title(view) for view in site.cache.info.settings.views]
    found.append(_choice("filter-view", "view", numbers, str(site.view(address)), titles=titles, clearable=False))
    now = {name: getattr(address, name) for name in FILTERS} | {"show": address.show, "view": str(site.view(address))}
    return scripted("filters", json.dumps(now), "controls", found)


def _choice(
    name: str,
    title: str,
    options: list[str],
    value: str,
    *,
    titles: list[str] | None = None,
    clearable: bool = True,
    hidden: bool = False,
) -> Component:
    return html.Div(
        [
            html.Label(title, htmlFor=name),
            dcc.Dropdown(
                options=[{"label": t, "value": o} for o, t in zip(options, titles, strict=True)] if titles else options,
                value=value or None,
                id=name,
                placeholder="any",
                clearable=clearable,
                searchable=len(options) > 8,
            ),
        ],
        className="choice",
        hidden=hidden,
    )
