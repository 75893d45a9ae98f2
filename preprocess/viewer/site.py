"""Hold everything that the pages show: a cache, its pictures, and the runs beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from preprocess.viewer.address import KINDS, Address
from preprocess.viewer.catalogue import Catalogue, build_catalogue
from preprocess.viewer.image_checks import ImageChecker
from preprocess.viewer.labels import Labels
from preprocess.viewer.pictures import MODALITY_OF, Pictures
from preprocess.viewer.run_records import NO_RUN, RunRecords, name_runs, read_run
from preprocess.viewer.tags import Tags, choose_tags_file
from shared.cache import Cache, open_cache
from shared.modalities import MODALITIES


@dataclass(frozen=True, eq=False)
class Site:
    """An opened cache, the run that is shown with it, and all runs to choose from."""

    cache: Cache
    run: RunRecords = NO_RUN
    faces: bool = True  # False: no picture leaves the program
    runs: tuple[RunRecords, ...] = ()  # with unique names; the first one is shown unless an address names another
    tags_file: Path | None = None  # None: beside the cache
    first: Site | None = None  # the site of the first run, which holds what does not depend on a run; None: this one

    @cached_property
    def catalogue(self) -> Catalogue:
        return build_catalogue(self.cache, self.run, self.labels, self.tags)

    @cached_property
    def pictures(self) -> Pictures:
        return self.first.pictures if self.first else Pictures(self.cache)

    @cached_property
    def checker(self) -> ImageChecker:
        return self.first.checker if self.first else ImageChecker(self.cache)

    @cached_property
    def labels(self) -> Labels:
        return self.first.labels if self.first else Labels(self.cache)

    @cached_property
    def tags(self) -> Tags:
        return self.first.tags if self.first else Tags(self.tags_file or choose_tags_file(self.cache), self.cache)

    @cached_property
    def _others(self) -> dict[str, Site]:
        return {run.name: dataclasses.replace(self, run=run, first=self) for run in self.runs[1:]}

    def choose(self, run: str) -> Site:
        """Return the site of a run; an unknown name is the first run's."""
        first = self.first or self
        return first._others.get(run, first)

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


def open_site(cache: Path, *runs: Path, faces: bool = True, tags_file: Path | None = None) -> Site:
    """Open a cache, and runs on it.

    Raises:
        FacetError: the cache, a run or the file of tags cannot be read, they do not match, or a run is given twice.
    """
    opened = open_cache(cache)
    names = name_runs(runs)
    records = tuple(
        dataclasses.replace(read_run(run, opened), name=name) for run, name in zip(runs, names, strict=True)
    )
    site = Site(opened, records[0] if records else NO_RUN, faces, records, tags_file)
    site.tags.by_sample()
    return site
