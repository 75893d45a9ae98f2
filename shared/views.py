"""Views as they are written on the command line, and which of a cache's views are meant by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import FacetError
from shared.schema import MODALITIES, View


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


@dataclass(frozen=True)
class ChosenViews:
    """Some of the views that each stored image has. places: of the chosen among those stored, in the order wanted."""

    places: tuple[int, ...]
    num_stored: int


def delivered_shape(name: str, stored: tuple[int, ...], views: ChosenViews | None) -> tuple[int, ...]:
    """The shape of one row of an array, as its reader delivers it."""
    return stored if views is None or name not in MODALITIES else (len(views.places), *stored[1:])


def choose_views(stored: Sequence[View], wanted: Sequence[View]) -> ChosenViews | None:
    """Where wanted views are among those stored; None where they are just those.

    Raises:
        ValueError: some are not among them; names these.
    """
    if lacking := [str(view) for view in wanted if view not in stored]:
        raise ValueError(",".join(lacking))
    if tuple(wanted) == tuple(stored):
        return None
    return ChosenViews(tuple(list(stored).index(view) for view in wanted), len(stored))
