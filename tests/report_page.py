"""An HTML report as its reader gets it: its tables and addresses; nothing in it runs or is fetched."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


@dataclass
class Page(HTMLParser):
    """What a report says: tables by name as rows of (text, numbers), every address, every element's name."""

    text: str
    tables: dict[str, list[list[tuple[str, list[float]]]]] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._table: list[list[tuple[str, list[float]]]] | None = None
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data", "poster")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "table":
            self._table = self.tables.setdefault(found.get("data-name") or "", [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table:
            self._table[-1].append(("", []))
        elif tag == "data" and self._table and self._table[-1]:
            self._table[-1][-1][1].append(float(found["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        if self._table and self._table[-1]:
            text, numbers = self._table[-1][-1]
            self._table[-1][-1] = (text + data.strip(), numbers)

    def numbers(self, table: str) -> dict[str, list[list[float]]]:
        """Head of a row → the numbers of each of its cells, in full."""
        return {row[0][0]: [numbers for _, numbers in row[1:]] for row in self.tables[table][1:]}


def read_page(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.elements and "link" not in page.elements and "iframe" not in page.elements
    for address in page.addresses:
        if re.fullmatch(r"#run-\d+", address):
            assert f'id="{address[1:]}">' in page.text
            continue
        assert re.match(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+$", address), address[:60]
        picture = base64.b64decode(address.partition(",")[2])
        if "svg" in address[:20]:
            links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', picture.decode())
            assert all((one or two).startswith("#") for one, two in links)
            assert b"<script" not in picture
    outside = re.sub(r"data:image/[^\"]*", "", page.text)
    assert "default-src 'none'" in outside
    assert not re.search(r"url\(|@import", outside)
    return page
