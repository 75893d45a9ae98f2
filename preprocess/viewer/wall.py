"""The wall: sixty samples per page, filtered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import FILTERS, Address
from preprocess.viewer.parts import Cell, page_links, scripted, tile, view_title
from preprocess.viewer.site import Site

PAGE_ROWS = 60
TITLES = {"validity": "valid or not"}  # of filters whose name is not its title


def wall_page(site: Site, address: Address) -> list[Component]:
    """Show the samples that pass the filters; a page number past the end shows the last page."""
    rows = site.catalogue.find_rows(address)
    num_pages = max(-(-len(rows) // PAGE_ROWS), 1)
    address = dataclasses.replace(address, page=min(address.page, num_pages - 1))
    shown = rows[address.page * PAGE_ROWS :][:PAGE_ROWS].tolist()
    nothing: list[Cell] = ["No sample passes these filters. ", dcc.Link("Show all", href="/")]
    return [
        html.H1(f"{len(rows):,} of {len(site.cache.samples):,} samples", className="small"),
        _filters(site, address),
        page_links("/", address, num_pages),
        html.Div([tile(site, row, address) for row in shown], className="wall")
        if shown
        else html.P(nothing, className="notice"),
        page_links("/", address, num_pages, keys=False) if num_pages > 1 else html.Div(),
    ]


def _filters(site: Site, address: Address) -> Component:
    """Show the filters; viewer.js compares them with their values in the address."""
    values = {name: getattr(address, name) for name in FILTERS} | {
        "show": address.show,
        "view": str(site.view(address)),
    }
    choices = []
    for name in FILTERS:
        options, value = site.catalogue.columns[name].options(), values[name]
        options += [value] if value and value not in options else []  # of an old link
        choices.append(_choice(name, options, value, options, hidden=len(options) < 2 and not value))
    views = site.cache.info.settings.views
    kinds, indices = site.kinds(), [str(index) for index in range(len(views))]
    choices += [
        _choice("show", kinds, address.show, [site.title(kind) for kind in kinds], title="picture", required=True),
        _choice("view", indices, values["view"], [view_title(view) for view in views], required=True),
    ]
    return scripted("filters", json.dumps(values), "controls", choices)


def _choice(
    name: str,
    options: Sequence[str],
    value: str,
    labels: Sequence[str],
    *,
    title: str = "",
    required: bool = False,
    hidden: bool = False,
) -> Component:
    dropdown = dcc.Dropdown(
        options=[{"label": label, "value": option} for label, option in zip(labels, options, strict=True)],
        value=value or None,
        id=f"filter-{name}",
        placeholder="any",
        clearable=not required,
        searchable=len(options) > 8,
    )
    label = html.Label(title or TITLES.get(name, name), htmlFor=f"filter-{name}")
    return html.Div([label, dropdown], className="choice", hidden=hidden)
