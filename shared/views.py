"""Views as written on the command line, and their indices among a cache's."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import FacetError
from shared.schema import View


def parse_views(text: str) -> tuple[View, ...]:
    """Views from the command line: "0,20,-20" are yaws; "0:15" is yaw 0 and pitch +15.

    Raises:
        FacetError: not numbers.
    """
    views = []
    for item in text.split(","):
        try:
            yaw, _, pitch = item.strip().partition(":")
            views.append(View(float(yaw), float(pitch or 0)))
        except ValueError as error:
            raise FacetError(
                f"--views {text!r}: expected yaw angles such as 0,20,-20 or yaw:pitch such as 0:15, found {item.strip()!r}"
            ) from error
    return tuple(views)


def choose_views(stored: Sequence[View], wanted: Sequence[View]) -> tuple[int, ...] | None:
    """Return the index of each wanted view among those stored; None where they are just those.

    Raises:
        ValueError: some are not among them; names these.
    """
    if lacking := [str(view) for view in wanted if view not in stored]:
        raise ValueError(",".join(lacking))
    if tuple(wanted) == tuple(stored):
        return None
    return tuple(list(stored).index(view) for view in wanted)
