"""What a page shows is told by its address alone, so that links and the back button work."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from shared.modalities import MODALITIES

NONE = "(none)"  # the value of a filter that keeps rows without a label, an intensity, a sequence or a prediction
VALIDITIES = ("valid", "invalid")
# How a sample is drawn. relief: normals lit from a fixed direction.
KINDS = tuple(modality.picture or name for name, modality in MODALITIES.items())
FILTERS = ("subject", "label", "intensity", "sequence", "validity", "predicted", "group")
COLOURS = ("label", "predicted", "subject", "error")  # what the map's points are coloured by
_MAX_NUMBER = 10**9


@dataclass(frozen=True)
class Address:
    """The query of a page's address. Empty strings keep every row.

    Only names and numbers: values are compared with what the tables hold, never used as a path.
    """

    subject: str = ""
    label: str = ""
    intensity: str = ""
    sequence: str = ""
    validity: str = ""  # one of VALIDITIES
    predicted: str = ""  # a class name of the run
    group: str = ""  # a column of groups and a value: "sex F"
    show: str = KINDS[0]
    view: int = -1  # index among the cache's views; -1: the one nearest to the front
    page: int = 0
    colour: str = COLOURS[0]  # of the map's points
    fold: int = 0  # of a cross-validation, as the map shows them one by one

    def query(self) -> str:
        """`?label=fear&page=2`; what is as by default is left out."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return f"?{urlencode(told)}" if told else ""

    def filtered_by(self, *, subject: str = "", label: str = "", sequence: str = "", predicted: str = "") -> Address:
        """Other filters in place of all of these, from the first page."""
        return Address(subject, label, sequence=sequence, predicted=predicted, show=self.show, view=self.view)


def parse_query(search: str, *, num_views: int) -> Address:
    """The inverse of `Address.query`. What cannot be understood counts as not said: an old link still opens."""
    try:
        said = dict(parse_qsl((search or "").removeprefix("?"), max_num_fields=50))
    except ValueError:
        said = {}
    view = _number(said.get("view", ""), missing=num_views)
    return Address(
        subject=said.get("subject", ""),
        label=said.get("label", ""),
        intensity=said.get("intensity", ""),
        sequence=said.get("sequence", ""),
        predicted=said.get("predicted", ""),
        group=said.get("group", ""),
        validity=said.get("validity", "") if said.get("validity") in VALIDITIES else "",
        show=said["show"] if said.get("show") in KINDS else KINDS[0],
        view=view if view < num_views else -1,
        page=_number(said.get("page", "")),
        colour=said["colour"] if said.get("colour") in COLOURS else COLOURS[0],
        fold=_number(said.get("fold", "")),
    )


def parse_row(text: str, num_rows: int) -> int | None:
    """A row number out of an address; None where there is no such row."""
    row = _number(text, missing=num_rows)
    return row if row < num_rows else None


def _number(text: str, missing: int = 0) -> int:
    return min(int(text), _MAX_NUMBER) if text.isascii() and text.isdigit() and len(text) < 12 else missing
