"""The wall: sixty samples per page, filtered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import ANY, FILTERS, SORTS, Address
from preprocess.viewer.parts import Cell, page_links, run_query, scripted, tile, view_title
from preprocess.viewer.run_records import WRONG
from preprocess.viewer.site import Site
from shared.csv_tables import encode_csv
from shared.pictures import order_views

PAGE_ROWS = 60
LIST_CSV = "samples.csv"
# Of filters whose name is not its title.
TITLES = {"validity": "valid or not", "au": "shows", "error": "right or wrong"}


def wall_page(site: Site, address: Address) -> list[Component]:
    """Show the samples that pass the filters; a page number past the end shows the last page."""
    rows = site.catalogue.find_rows(address)
    num_pages = max(-(-len(rows) // PAGE_ROWS), 1)
    address = dataclasses.replace(address, page=min(address.page, num_pages - 1))
    shown = rows[address.page * PAGE_ROWS :][:PAGE_ROWS].tolist()
    nothing: list[Cell] = ["No sample passes these filters. ", dcc.Link("Show all", href="/" + run_query(site))]
    return [
        html.H1(f"{len(rows):,} of {len(site.cache.samples):,} samples", className="small"),
        _filters(site, address),
        html.P(_links(site, address), className="faint"),
        page_links("/", address, num_pages),
        html.Div([tile(site, row, address) for row in shown], className="wall")
        if shown
        else html.P(nothing, className="notice"),
        page_links("/", address, num_pages, keys=False) if num_pages > 1 else html.Div(),
    ]


def encode_list(site: Site, address: Address) -> bytes:
    """Encode the samples that pass the filters as CSV, in the order of the wall, with predictions and tags."""
    tags, run = site.tags.by_sample(), site.run
    lines = [["sample_id", "subject", "label", *["predicted", "confidence"] * bool(run.name), "tags"]]
    for row in site.catalogue.find_rows(address).tolist():
        sample, one = site.cache.samples[row], run.predictions.get(row)
        answer = ["+".join(one.predicted), f"{run.confidence(one):.6g}"] if one else ["", ""]
        known = [sample.sample_id, sample.subject, sample.label, *answer[: 2 * bool(run.name)]]
        lines.append([*known, "; ".join(tags.get(sample.sample_id, ()))])
    return encode_csv(lines)


def _links(site: Site, address: Address) -> list[Cell]:
    """Link to the list as CSV, to the wrong predictions, and to the tagged samples."""
    every = dataclasses.replace(address, page=0, show=Address.show, view=Address.view)
    links: list[Cell] = [
        html.A("download this list as CSV", href=f"/{LIST_CSV}{every.query()}", download="samples.csv")
    ]
    if site.run.name and not address.error:
        wrong = dataclasses.replace(address, error=WRONG, sort="high", page=0)
        links += [" · ", dcc.Link("only the wrong ones, high confidence first", href="/" + wrong.query())]
    if site.tags.by_sample():
        tagged = dcc.Link("all tagged samples", href="/" + address.with_filters(tag=ANY).query())
        links += [" · ", tagged, f", kept in {site.tags.path}"]
    return links


def _filters(site: Site, address: Address) -> Component:
    """Show the filters; viewer.js compares them with their values in the address."""
    values = {name: getattr(address, name) for name in FILTERS} | {
        "sort": address.sort,
        "show": address.show,
        "view": str(site.view(address)),
    }
    choices = []
    for name in FILTERS:
        options, value = site.catalogue.filters[name].options(), values[name]
        options += [value] if value and value not in options else []  # of an old link
        choices.append(_choice(name, options, value, options, hidden=len(options) < 2 and not value))
    views = site.cache.info.settings.views
    kinds, order = site.kinds(), order_views(views)
    sorts = {name: title for name, title in SORTS.items() if name != "errors" or site.run.several}
    no_run = not site.run.name and not address.sort
    choices += [
        _choice("sort", [*sorts], address.sort, [*sorts.values()], title="sort by", hidden=no_run, nothing="row"),
        _choice("show", kinds, address.show, [site.title(kind) for kind in kinds], title="picture", required=True),
        _choice("view", [*map(str, order)], values["view"], [view_title(views[view]) for view in order], required=True),
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
    nothing: str = "any",
) -> Component:
    dropdown = dcc.Dropdown(
        options=[{"label": label, "value": option} for label, option in zip(labels, options, strict=True)],
        value=value or None,
        id=f"filter-{name}",
        placeholder=nothing,
        clearable=not required,
        searchable=len(options) > 8,
    )
    label = html.Label(title or TITLES.get(name, name), htmlFor=f"filter-{name}")
    return html.Div([label, dropdown], className="choice", hidden=hidden)
