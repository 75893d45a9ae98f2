"""What every page is made from, and the parts that several pages share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import KINDS, Address
from preprocess.viewer.attention_records import NO_RECORDS, AttentionRecords
from preprocess.viewer.catalogue import Catalogue
from preprocess.viewer.maps import Maps
from preprocess.viewer.pictures import MODALITY_OF, Pictures, has_picture, shown_kind
from preprocess.viewer.statistics import Statistician
from shared.cache import Cache
from shared.schema import View


@dataclass(frozen=True)
class Site:
    """A cache on show."""

    catalogue: Catalogue
    pictures: Pictures
    faces: bool  # False: no picture leaves the program
    run: str = ""  # the run's name, where there is one
    looks: AttentionRecords = NO_RECORDS  # what the run looked at

    @property
    def cache(self) -> Cache:
        return self.catalogue.cache

    @property
    def front(self) -> int:
        return self.cache.info.settings.front_view

    @cached_property
    def statistician(self) -> Statistician:
        return Statistician(self.cache, self.front)

    def close(self) -> None:
        """Ends what runs behind the pages: threads that outlive Python's own cannot read any more."""
        if "statistician" in self.__dict__:
            self.statistician.stop()

    @cached_property
    def maps(self) -> Maps:
        return Maps(self.catalogue, self.looks)

    def view(self, address: Address) -> int:
        return address.view if address.view >= 0 else self.front

    def kinds(self) -> list[str]:
        """What can be shown of this cache's samples."""
        return [kind for kind in KINDS if MODALITY_OF[kind] in self.cache.info.settings.modalities]


def view_title(view: View) -> str:
    """Where the camera stands: `20°, subject's left` sees more of the subject's left cheek, which is on the picture's right."""
    if not view.yaw_deg:
        side = "front" if not view.pitch_deg else "above" if view.pitch_deg > 0 else "below"
    else:
        side = "subject's left" if view.yaw_deg > 0 else "subject's right"
    return f"{view}°, {side}"


def picture_address(row: int, kind: str, view: int) -> str:
    return f"/image/{row}/{kind}/{view}.png"


def sample_address(row: int, address: Address) -> str:
    """A sample's page; the query goes along, so that there is a way back to the wall it was found on."""
    return f"/sample/{row}{address.query()}"


def picture(site: Site, row: int, kind: str, view: int, alt: str) -> Component:
    """A picture of a row, or one word where there is none."""
    sample = site.cache.samples[row]
    if not site.faces:
        return html.Div("no faces", className="blank")
    if not sample.valid:
        return html.Div(sample.reason or "not valid", className="blank failed")
    if not has_picture(sample, kind):
        return html.Div(f"no {kind}", className="blank")
    size = site.cache.info.settings.size_px
    return html.Img(src=picture_address(row, kind, view), alt=alt, width=str(size), height=str(size))


def tile(site: Site, row: int, address: Address, *, caption: str | None = None, marked: bool = False) -> Component:
    """A sample as one picture with its name, a link to its page; caption: what is told of it, in place of its label."""
    sample = site.cache.samples[row]
    kind = shown_kind(sample, address.show) or address.show
    said = site.catalogue.predictions.get(row)
    wrong = said is not None and said.num_wrong(sample.label) > 0
    return dcc.Link(
        [
            picture(site, row, kind, site.view(address), f"{sample.sample_id}, {sample.label or 'no label'}"),
            html.Span(caption if caption is not None else sample.label or "no label", className="label"),
            *(
                [html.Span(f"intensity {sample.intensity}", className="level")]
                if sample.intensity and caption is None
                else []
            ),
            *([html.Span(f"→ {said.summary()}", className="wrong" if wrong else "right")] if said else []),
            html.Span(sample.sample_id, className="name"),
        ],
        href=sample_address(row, address),
        className="tile marked" if marked else "tile",
        title=sample.sample_id + (f": {sample.reason}" if sample.reason else ""),
    )


def scripted(name: str, told: str, class_name: str, children: list[Component] | None = None, **more: str) -> Component:
    """An element that a script of assets/ brings to life: data-NAME tells it what it needs, `more` further data-…"""
    data: dict[str, Any] = {f"data-{key}": value for key, value in {name: told, **more}.items()}
    return html.Div(children, className=class_name, **data)


def table(head: list[str], rows: list[list[Component | str]], *, class_name: str = "") -> Component:
    return html.Div(
        html.Table(
            [
                html.Thead(html.Tr([html.Th(cell) for cell in head])),
                html.Tbody([html.Tr([html.Th(row[0]), *[html.Td(cell) for cell in row[1:]]]) for row in rows]),
            ],
            className=class_name,
        ),
        className="scrolls",
    )


def key_link(text: str, href: str, key: str) -> Component:
    """A link that a key follows as well: viewer.js looks for the class."""
    return dcc.Link(text, href=href, className=f"key key-{key}", title=f"key: {key}")


def page_links(path: str, address: Address, num_pages: int, *, keys: bool = True) -> Component:
    """From a list's page at an address to those before and after; `keys`: keys follow them as well."""
    page = address.page

    def link(text: str, to: int, key: str) -> Component:
        if not 0 <= to < num_pages or to == page:
            return html.Span(text, className="off")
        href = path + dataclasses.replace(address, page=to).query()
        return key_link(text, href, key) if keys else dcc.Link(text, href=href)

    return html.Nav(
        [
            link("⇤ first", 0, "Home"),
            link("← previous", page - 1, "PageUp"),
            html.Span(f"page {page + 1:,} of {num_pages:,}", className="where"),
            link("next →", page + 1, "PageDown"),
            link("last ⇥", num_pages - 1, "End"),
        ],
        className="pages",
    )
