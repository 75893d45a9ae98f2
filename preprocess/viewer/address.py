"""Addresses of pages: filters, view and page number all stand in the address, so that links and the back button work."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from shared.modalities import MODALITIES

NONE = "(none)"  # filter value for rows without a label, an intensity, a sequence or a prediction
ANY = "(any)"  # filter value for rows with any tag
VALIDITIES = ("valid", "invalid")
# How a sample is drawn: texture, relief (normals, lit from a fixed direction), depth.
KINDS = tuple(modality.picture or name for name, modality in MODALITIES.items())
FILTERS = (
    "subject", "label", "intensity", "sequence", "task", "au", "validity", "predicted", "error", "group", "tag",
)  # fmt: skip
# How the wall is sorted → what the reader chooses.
SORTS = {"low": "low confidence first", "high": "high confidence first", "errors": "most errors first"}
COLOURS = ("label", "predicted", "subject", "error")  # what colours the points of the map
LAYOUTS = ("neighbours", "pca")  # of the map
PEOPLE = ("subtracted", "kept")  # on the map, each subject's mean face
_CHOICES = {"validity": VALIDITIES, "sort": SORTS, "show": KINDS, "layout": LAYOUTS, "people": PEOPLE}
_WORDS = ("sort", "run", "show", "colour", "layout", "people")
_MAX_NUMBER = 10**9


@dataclass(frozen=True)
class Address:
    """Query of a page's address, and the row in its path. Empty filters keep every row.

    Only names and numbers: filters are compared with the tables of the cache and never used as a path.
    """

    subject: str = ""
    label: str = ""
    intensity: str = ""
    sequence: str = ""
    task: str = ""
    au: str = ""  # an action unit or emotion and its value: "AU4 present"
    validity: str = ""  # one of VALIDITIES
    predicted: str = ""  # a class name; for several labels a class and TP, FN or FP: "AU4 FN"
    error: str = ""  # "wrong" or "right"; for several labels also "2 wrong"
    group: str = ""  # a column of groups and its value: "sex F"
    tag: str = ""
    sort: str = ""  # one of SORTS; empty: in the order of the cache
    run: str = ""  # name of a run; empty: the first one
    show: str = KINDS[0]
    view: int = -1  # index into the cache's views; -1: the one nearest to the front
    page: int = 0
    colour: str = COLOURS[0]  # of the map's points: one of COLOURS, or an action unit or emotion
    layout: str = LAYOUTS[0]
    people: str = PEOPLE[0]
    fold: int = 0  # index of the fold that the map shows
    row: int = -1  # of a sample's page; stands in the path, not in the query

    def query(self) -> str:
        """Return `?label=fear&page=2`; default values are left out."""
        fields = [field for field in dataclasses.fields(self) if field.name != "row"]
        values = {f.name: value for f in fields if (value := getattr(self, f.name)) != f.default}
        return f"?{urlencode(values)}" if values else ""

    def with_filters(self, **filters: str) -> Address:
        """Return the address of the first page with these filters only; run, view and kind of picture stay."""
        return Address(show=self.show, view=self.view, run=self.run, **filters)  # type: ignore[arg-type]


def parse_query(search: str, *, num_views: int) -> Address:
    """Read an address from its query. Unknown names and wrong values are ignored, so that old links still open."""
    try:
        found = dict(parse_qsl(search.removeprefix("?"), max_num_fields=50))
    except ValueError:
        found = {}
    values: dict[str, Any] = {name: found[name] for name in (*FILTERS, *_WORDS) if name in found}
    values = {name: text for name, text in values.items() if text in _CHOICES.get(name, (text,))}
    view = _parse_number(found.get("view", ""), default=num_views)
    numbers: dict[str, Any] = {name: _parse_number(found.get(name, ""), default=0) for name in ("page", "fold")}
    return Address(view=view if view < num_views else -1, **numbers, **values)


def parse_row(text: str, num_rows: int) -> int | None:
    """Read a row number from a path; None if there is no such row."""
    row = _parse_number(text, default=num_rows)
    return row if row < num_rows else None


def _parse_number(text: str, default: int) -> int:
    return min(int(text), _MAX_NUMBER) if text.isascii() and text.isdigit() and len(text) < 12 else default
