"""The viewer's pages as a browser gets them, in words."""

from __future__ import annotations

import json
import re
from typing import Any

from preprocess.viewer.pages import build_page
from preprocess.viewer.site import Site


def page_text(site: Site, pathname: str, search: str = "") -> str:
    """A page as the browser gets it: Dash's own JSON."""
    return json.dumps(
        [part.to_plotly_json() for part in build_page(site, pathname, search)], default=_plain, ensure_ascii=False
    )


def _plain(value: Any) -> Any:
    return value.to_plotly_json() if hasattr(value, "to_plotly_json") else value.tolist()


def tiles(site: Site, search: str) -> list[int]:
    """The rows that a wall shows, in order."""
    wall = page_text(site, "/", search)
    return [int(row) for row in re.findall(r'"/sample/(\d+)', wall)]


def components_text(parts: list[Any]) -> str:
    return json.dumps([part.to_plotly_json() for part in parts], default=lambda value: value.to_plotly_json())
