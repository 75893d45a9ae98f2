"""Reopen the cache when it was built again while its pages are open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from preprocess.viewer.site import Site
from shared.cache import CACHE_JSON, read_info
from shared.errors import FacetError
from shared.store.paths import is_remote

POLL_SECONDS = 15  # between two questions of an open page
REMOTE_SECONDS = 60  # between two reads from an object store, for all pages together
BUILDING = "the cache is being built again; reload this page when the build is done"


class LiveSite:
    """The site that pages are made from. `site` is replaced as a whole, so a page in the making stays consistent."""

    def __init__(self, open_site: Callable[[], Site]) -> None:
        """
        Args:
            open_site: opens the cache and its run as they are now. Raises FacetError.
        """
        self._open_site, self.site = open_site, open_site()
        self._lock = threading.Lock()
        self._refused = ("", "")  # content hash of a cache that could not be opened, and why

    def describe_change(self, opened: str) -> str:
        """Return a line for a page that was made from the cache with content hash `opened`; "" if nothing changed."""
        found = self._find_hash()
        if found == opened:
            return ""
        if found and found == self._refused[0]:
            return f"the cache has changed and cannot be shown: {self._refused[1]}"
        return "the cache has changed since this page was opened: reload it" if found else BUILDING

    def renew(self) -> Site:
        """Return the site of the cache as it is now; if that is unfinished or cannot be opened, the one before."""
        with self._lock:
            found = self._find_hash()
            if found and found not in (self.site.cache.info.content_hash, self._refused[0]):
                try:
                    before, self.site = self.site, self._open_site()
                    before.close()
                except FacetError as error:
                    self._refused = (found, str(error))
            return self.site

    def _find_hash(self) -> str:
        """Return the content hash of the cache as it is now; "" if it is unfinished or gone."""
        path = self.site.cache.path
        try:
            if is_remote(path):
                return _read_hash(path, (int(time.monotonic() / REMOTE_SECONDS),))
            status = (path / CACHE_JSON).stat()
            return _read_hash(path, (status.st_mtime_ns, status.st_size, status.st_ino))
        except (FacetError, OSError):
            return ""


@lru_cache(maxsize=1)
def _read_hash(path: Path, version: tuple[int, ...]) -> str:
    """Read the content hash of a finished cache, "" of an unfinished one; once per version of its file."""
    info = read_info(path)
    return info.content_hash if info.complete else ""
