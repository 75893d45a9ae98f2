"""The table of pages. A page is a function of (site, address) that returns components; a new page is one file and one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import Address, parse_query, parse_row
from preprocess.viewer.confusion import confusion_page
from preprocess.viewer.coverage import coverage_page
from preprocess.viewer.label_noise import noise_page
from preprocess.viewer.map import map_page
from preprocess.viewer.parts import key_link
from preprocess.viewer.player import player_page
from preprocess.viewer.prompts import prompts_page
from preprocess.viewer.sample import sample_page
from preprocess.viewer.site import Site
from preprocess.viewer.wall import wall_page


@dataclass(frozen=True)
class Page:
    """A page, and what it needs: a run, or a row in its path (/sample/6)."""

    title: str
    build: Callable[[Site, Address], list[Component]]
    needs_run: bool = False
    needs_row: bool = False


PAGES = {
    "": Page("samples", wall_page),
    "sample": Page("sample", sample_page, needs_row=True),
    "play": Page("player", player_page, needs_row=True),
    "coverage": Page("coverage", coverage_page),
    "prompts": Page("prompts", prompts_page),
    "confusion": Page("confusion", confusion_page, needs_run=True),
    "noise": Page("label noise", noise_page, needs_run=True),
    "map": Page("map", map_page, needs_run=True),
}


def read_address(site: Site, search: str | None) -> Address:
    return parse_query(search or "", num_views=len(site.cache.info.settings.views))


def build_page(site: Site, pathname: str | None, search: str | None) -> list[Component]:
    """Build the page at an address. Addresses hold names of pages and row numbers, nothing else."""
    name, slash, number = (pathname or "/").removeprefix("/").partition("/")
    page, row = PAGES.get(name), parse_row(number, len(site.cache.samples))
    if page is None or bool(slash) != page.needs_row or (page.needs_row and row is None):
        return [html.H1("No such page"), html.P(dcc.Link("All samples", href="/"))]
    if page.needs_run and not site.run.name:
        command = html.Code(f"python -m preprocess inspect --cache {site.cache.path} --run RUN")
        text: list[Component | str] = [
            "This page shows a trained run: start the viewer with --run RUN, such as ",
            command,
        ]
        return [html.H1(page.title.capitalize()), html.P(text, className="notice")]
    address = read_address(site, search)
    site = site.choose(address.run)
    return page.build(site, dataclasses.replace(address, row=-1 if row is None else row))


def list_links(site: Site, pathname: str | None = None, search: str | None = None) -> list[Component]:
    """Link to the pages that stand in the header, and to this page of each other run."""
    address = read_address(site, search)
    run = Address(run=address.run).query()
    shown = {name: page for name, page in PAGES.items() if not page.needs_row and (site.run.name or not page.needs_run)}
    links: list[Component] = [dcc.Link(page.title, href=f"/{name}{run}") for name, page in shown.items()]
    return [*links, *_list_runs(site, pathname or "/", address)]


def _list_runs(site: Site, pathname: str, address: Address) -> list[Component]:
    """Link to the same page of every run; key r leads to the next one. Nothing if there are fewer than two."""
    if len(site.runs) < 2:
        return []
    chosen = site.choose(address.run).run
    current = [run.name for run in site.runs].index(chosen.name)
    links: list[Component] = [html.Span("run:", className="faint")]
    for index, run in enumerate(site.runs):
        kept = address if run.class_names == chosen.class_names else dataclasses.replace(address, predicted="")
        href = pathname + dataclasses.replace(kept, run=run.name if index else "", fold=0, page=0).query()
        if index == current:
            links.append(html.B(run.name))
        elif index == (current + 1) % len(site.runs):
            links.append(key_link(run.name, href, "r"))
        else:
            links.append(dcc.Link(run.name, href=href))
    return [html.Nav(links, className="runs")]
