"""Hold everything that the pages show: a cache, its pictures, and the run beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from preprocess.viewer.address import KINDS, Address
from preprocess.viewer.catalogue import Catalogue, build_catalogue
from preprocess.viewer.image_checks import ImageChecker
from preprocess.viewer.pictures import MODALITY_OF, Pictures
from preprocess.viewer.run_records import NO_RUN, RunRecords, read_run
from shared.cache import Cache, open_cache
from shared.modalities import MODALITIES


@dataclass(frozen=True, eq=False)
class Site:
    """An opened cache, and the run that is shown with it."""

    cache: Cache
    run: RunRecords = NO_RUN
    faces: bool = True  # False: no picture leaves the program

    @cached_property
    def catalogue(self) -> Catalogue:
        return build_catalogue(self.cache, self.run)

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.cache)

    @cached_property
    def checker(self) -> ImageChecker:
        return ImageChecker(self.cache)

    def close(self) -> None:
        """Stop the background thread: it cannot read any more when Python ends."""
        if "checker" in self.__dict__:
            self.checker.stop()

    def view(self, address: Address) -> int:
        """Return the index of the view to show."""
        return address.view if address.view >= 0 else self.cache.info.settings.front_view

    def kinds(self) -> list[str]:
        """Return the kinds of pictures that this cache has."""
        return [kind for kind in KINDS if MODALITY_OF[kind] in self.cache.info.settings.modalities]

    def title(self, kind: str) -> str:
        """Return the name of a kind of picture, for readers."""
        return MODALITIES[MODALITY_OF[kind]].title(dynamic=bool(self.cache.info.settings.dynamic))


def open_site(cache: Path, run: Path | None = None, *, faces: bool = True) -> Site:
    """Open a cache, and a run on it.

    Raises:
        FacetError: the cache or the run cannot be read, or they do not match.
    """
    opened = open_cache(cache)
    return Site(opened, read_run(run, opened) if run else NO_RUN, faces)
