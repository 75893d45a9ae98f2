"""Open the cache that a run was tested on, where it is recorded."""

from __future__ import annotations

from shared.cache import CACHE_JSON, Cache, open_cache
from shared.errors import CacheError, FacetError
from shared.store.paths import is_address, is_file, open_path
from train.config import RunConfig


def open_tested(config: RunConfig) -> Cache:
    """Open the cache that a run was tested on; its content may be another by now.

    Raises:
        FacetError, CacheError: none is recorded, it lies at an address, it is gone, or it cannot be opened.
    """
    path = config.test_cache or config.cache
    if not path:
        raise FacetError("an exported model does not record where its cache is; give --cache DIR")
    if is_address(path):
        raise FacetError(f"the cache is at {path}, which is read only if you name it: give --cache {path}")
    if not is_file(open_path(path) / CACHE_JSON):
        raise CacheError(
            f"{path}: no cache here any more, on which the run was tested; if it was moved, give --cache DIR, or build it "
            "again with `python -m preprocess build`"
        )
    return open_cache(path)
