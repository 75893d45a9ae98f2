"""The map page: a point for each face of a test, near those whose fused vectors are alike."""

from __future__ import annotations

import dataclasses
import json

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import COLOURS, Address
from preprocess.viewer.maps import MAX_POINTS
from preprocess.viewer.site import Site, key_link, scripted


def map_page(site: Site, address: Address) -> list[Component]:
    head = html.H1(f"Map of {site.run}")
    tests = site.looks.tests
    notes = [html.P(note, className="notice") for note in site.looks.notes]
    if not tests:
        return [head, *(notes or [html.P("Nothing was recorded of its test.", className="notice")])]
    fold = min(address.fold, len(tests) - 1)
    here = dataclasses.replace(address, fold=fold)
    num = len(tests[fold].items)
    capped = f" {MAX_POINTS:,} of them are shown, evenly spread." if num > MAX_POINTS else ""
    told = {
        "points": f"/points/{fold}.json",
        "colour": here.colour,
        "query": Address(show=address.show, view=address.view).query(),
        "picture": f"/{site.view(address)}.png" if site.faces else "",
    }
    return [
        head,
        html.P(
            f"{num:,} faces of {tests[fold].name}, each where its fused vector lies along the two directions in which they "
            f"differ most (principal components).{capped} Each "
            f"axis is stretched to fill the page; what is near here may be far apart in all other directions."
        ),
        html.Nav(
            ["colour: ", *[_choice(name, here, str(place + 1)) for place, name in enumerate(COLOURS)]],
            className="pages",
        ),
        *([_folds(site, here)] if len(tests) > 1 else []),
        scripted("map", json.dumps(told), "map"),
        html.P(
            "Click or Enter opens a face; arrows go from point to point; wheel, + and − zoom, drag moves, 0 shows all.",
            className="faint",
        ),
        *notes,
    ]


def _choice(name: str, address: Address, key: str) -> Component:
    if name == address.colour:
        return html.B(name)
    return key_link(name, "/map" + dataclasses.replace(address, colour=name).query(), key)


def _folds(site: Site, address: Address) -> Component:
    """Each fold has a model of its own, and so a map of its own."""
    names = [test.name for test in site.looks.tests]

    def link(text: str, to: int, key: str) -> Component:
        if not 0 <= to < len(names):
            return html.Span(text, className="off")
        return key_link(text, "/map" + dataclasses.replace(address, fold=to).query(), key)

    return html.Nav(
        [
            link("← previous fold", address.fold - 1, "PageUp"),
            html.Span(f"{names[address.fold]} ({address.fold + 1} of {len(names)})", className="where"),
            link("next fold →", address.fold + 1, "PageDown"),
            dcc.Link("first", href="/map" + dataclasses.replace(address, fold=0).query()),
        ],
        className="pages",
    )
