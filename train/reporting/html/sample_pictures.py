"""Pictures of the samples that predictions were made for, from the cache of a run where it is still there, as PNG in a URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from shared.cache import CACHE_JSON, Cache, open_cache
from shared.errors import CacheError, FacetError, describe_os_error
from shared.modalities import BACKGROUND, get_modality
from shared.store.paths import is_address, is_file, open_path
from train.config import RunConfig

GAP_PX = 4
TILE_PX = 112  # larger images are scaled down to about this, by whole numbers


def open_moved_caches(paths: Sequence[Path], configs: Sequence[RunConfig]) -> dict[str, Cache]:
    """Caches by their content.

    Raises:
        FacetError, CacheError: no cache; none of the runs was tested on it.
    """
    tested = {_tested_content(config) for config in configs}
    found = {}
    for path in paths:
        cache = open_cache(path)
        if cache.info.content_hash not in tested:
            raise FacetError(f"--cache {path}: none of these runs was tested on its content; leave it out")
        found[cache.info.content_hash] = cache
    return found


def open_tested_cache(config: RunConfig, moved: Mapping[str, Cache]) -> tuple[Cache | None, str]:
    """The cache that a run was tested on, with the views that it looked at; or None and why not.

    Args:
        moved: caches by their content, that are not where they were any more.
    """
    place, content = config.test_cache or config.cache, _tested_content(config)
    cache = moved.get(content)
    try:
        if cache is None:
            if not place:
                return None, "an exported model does not know where its cache is; give --cache DIR"
            if is_address(place):
                return None, f"the cache lies at {place}, which is only asked when you name it: give --cache {place}"
            if not is_file(open_path(place) / CACHE_JSON):
                return None, f"{place}: no cache here any more; if it was moved, give --cache DIR"
            cache = open_cache(place)
        if cache.info.content_hash != content:
            return None, f"{place}: its content is no longer what the run was tested on"
        return cache.with_views(config.render.views), ""
    except FacetError as error:
        return None, str(error)
    except OSError as error:
        return None, describe_os_error(error)


def _tested_content(config: RunConfig) -> str:
    return config.test_content_hash or config.content_hash


def find_rows(cache: Cache, names: Sequence[str]) -> dict[str, int]:
    """The row to show of each sample or sequence, of a sequence its middle valid frame; those not found are left out."""
    single = {sample.sample_id: (row,) for row, sample in enumerate(cache.samples)}
    rows = {name: cache.frames(name) or single.get(name, ()) for name in names}
    valid = {name: [row for row in members if cache.samples[row].valid] for name, members in rows.items()}
    return {name: members[len(members) // 2] for name, members in valid.items() if members}


def draw_sample(cache: Cache, row: int, modalities: Sequence[str]) -> np.ndarray:
    """A row of the cache, u8 (H, W, 3): a line a modality it has, a column a view.

    Raises:
        CacheError: its bytes are damaged, or it has none of the modalities.
    """
    there = [m for m in modalities if cache.samples[row].has(m)]
    if not there:
        raise CacheError(f"{cache.path}: {cache.samples[row].sample_id} holds no {', '.join(modalities)}")
    dynamic = bool(cache.info.settings.dynamic)
    factor = max(1, round(cache.info.settings.size_px / TILE_PX))
    lines = []
    for modality in there:
        views = cache.arrays.read(modality, [row])[0]
        tiles = [_shrink(get_modality(modality).draw(pixels, dynamic=dynamic), factor) for pixels in views]
        lines.append(_join(tiles, axis=1))
    return _join(lines, axis=0)


def _shrink(picture: np.ndarray, factor: int) -> np.ndarray:
    """The mean of each factor × factor pixels; what is left over at the right and the foot is cut off."""
    size = picture.shape[0] // factor * factor
    blocks = picture[:size, :size].reshape(size // factor, factor, size // factor, factor, 3)
    return np.asarray(blocks.mean((1, 3)).round().astype(np.uint8)) if factor > 1 else picture


def _join(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
    gap = list(pictures[0].shape)
    gap[axis] = GAP_PX
    parts = [part for picture in pictures for part in (np.full(gap, BACKGROUND, np.uint8), picture)]
    return np.concatenate(parts[1:], axis=axis)


def encode_png_uri(picture: np.ndarray) -> str:
    """data:image/png;base64,… of u8 (H, W, 3), losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
