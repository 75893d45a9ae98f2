"""The site on show, opened anew once its cache has been built again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from preprocess.viewer.site import Site
from shared.cache import CACHE_JSON, read_info
from shared.errors import FacetError
from shared.store.paths import is_remote

LOOK_SECONDS = 15  # between two questions of an open page
REMOTE_SECONDS = 60.0  # between two looks into an object store, whoever asks
BUILDING = "the cache is being built again; reload this page when that has ended"


class LiveSite:
    """What pages are made from. `site` is replaced whole: who took it goes on with what it was."""

    def __init__(self, open_site: Callable[[], Site]) -> None:
        """
        Args:
            open_site: opens the cache, and the run beside it, as they are now. Raises FacetError.
        """
        self._open_site = open_site
        self._lock = threading.Lock()
        self.site = open_site()
        self._seen: tuple[object, ...] = ()  # what cache.json's file looked like when it was last read …
        self._found = ""  # … and the content hash in it; empty: not a finished cache
        self._refused = ("", "")  # a content hash that cannot be shown, and why

    def describe_change(self, opened: str) -> str:
        """A line for a page that was made when the cache's content hash was `opened`; empty where nothing changed."""
        with self._lock:
            found = self._find_hash()
        if found == opened:
            return ""
        if not found:
            return BUILDING
        hash_refused, reason = self._refused
        if found == hash_refused:
            return f"the cache has changed and cannot be shown: {reason}"
        return "the cache has changed since this page was opened: reload it"

    def renew(self) -> Site:
        """The site of the cache as it is now; where that is unfinished or cannot be shown, as it was before."""
        with self._lock:
            found = self._find_hash()
            if found and found not in (self.site.cache.info.content_hash, self._refused[0]):
                try:
                    before, self.site = self.site, self._open_site()
                    before.close()
                except FacetError as error:
                    self._refused = (found, str(error))
            return self.site

    def close(self) -> None:
        self.site.close()

    def _find_hash(self) -> str:
        """The content hash of the cache that lies there now; its file is read only where it looks changed."""
        path = self.site.cache.path
        try:
            if is_remote(path):
                seen: tuple[object, ...] = (int(time.monotonic() / REMOTE_SECONDS),)
            else:
                status = (path / CACHE_JSON).stat()
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                info = read_info(path)
                self._seen, self._found = seen, info.content_hash if info.complete else ""
        except (FacetError, OSError):  # gone, or an object store that does not answer: asked again
            self._seen, self._found = (), ""
        return self._found
