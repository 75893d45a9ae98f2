"""Pictures of samples, from the cache that a run was tested on, as PNG in data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from shared.cache import Cache, open_cache
from shared.errors import CacheError, FacetError, describe_os_error, name_some
from shared.modalities import BACKGROUND, get_modality
from shared.pairs import group_pairs
from shared.pictures import centre_face, order_views
from shared.sequences import frame_number
from train.config import RunConfig
from train.runs.tested_cache import open_tested

GAP_PX = 4
TILE_PX = 112  # larger images are scaled down to about this size, by an integer factor


def open_moved_caches(paths: Sequence[Path], configs: Sequence[RunConfig]) -> dict[str, Cache]:
    """Open the caches that a user gives with --cache because they were moved since the runs.

    Returns:
        Content hash → cache.
    Raises:
        CacheError: a path is no readable cache.
        FacetError: none of the runs was tested on a cache's content.
    """
    tested = {_tested_content(config) for config in configs}
    caches = {}
    for path in paths:
        cache = open_cache(path)
        if cache.info.content_hash not in tested:
            raise FacetError(f"--cache {path}: none of these runs was tested on its content; leave it out")
        caches[cache.info.content_hash] = cache
    return caches


def open_tested_cache(config: RunConfig, moved: Mapping[str, Cache]) -> tuple[Cache | None, str]:
    """Open the cache that a run was tested on, with the run's views.

    Args:
        moved: the caches of `open_moved_caches`.
    Returns:
        The cache, or None and why it cannot be opened.
    """
    content = _tested_content(config)
    try:
        cache = moved.get(content) or open_tested(config)
        if cache.info.content_hash != content:
            return None, f"{cache.path}: its content is no longer what the run was tested on"
        return cache.with_views(config.render.views), ""
    except FacetError as error:
        return None, str(error)
    except OSError as error:
        return None, describe_os_error(error)


def _tested_content(config: RunConfig) -> str:
    return config.test_content_hash or config.content_hash


def draw_samples(
    config: RunConfig, names: Sequence[str], moved: Mapping[str, Cache]
) -> tuple[dict[str, str], list[str]]:
    """Draw samples, and of sequences the middle frame.

    Returns:
        Name → data URI; why others have no picture, a line each.
    """
    cache, reason = open_tested_cache(config, moved)
    if cache is None:
        return {}, [f"no pictures of samples: {reason}"]
    rows = _find_rows(cache, names)
    missing = []
    if lost := [name for name in names if name not in rows]:
        missing.append(f"no picture of {name_some(lost)}: not in {cache.path}")
    uris = {}
    try:
        for name, row in rows.items():
            try:
                uris[name] = _encode_png(draw_sample(cache, row, config.recipe.modalities))
            except FacetError as error:
                missing.append(f"no picture of {name}: {error}")
        cache.check_unchanged()
    except FacetError as error:
        return {}, [*missing, f"no pictures of samples: {error}"]
    return uris, missing


def _find_rows(cache: Cache, names: Sequence[str]) -> dict[str, int]:
    """Return the row to show of each sample or sequence: of a sequence its middle valid frame."""
    wanted = set(names)
    frames = group_pairs(
        (name, (frame_number(sample), row))
        for row, sample in enumerate(cache.samples)
        if sample.valid
        for name in {sample.sequence, sample.sample_id} & wanted
    )
    return {name: sorted(rows)[len(rows) // 2][1] for name, rows in frames.items()}


def draw_sample(cache: Cache, row: int, modalities: Sequence[str]) -> np.ndarray:
    """Draw a row of the cache, u8 (H, W, 3): a line for each modality it has, a column for each view in the order of yaw.

    Raises:
        CacheError: its bytes are damaged, or it has none of the modalities.
    """
    present = [m for m in modalities if cache.samples[row].has(m)]
    if not present:
        raise CacheError(f"{cache.path}: {cache.samples[row].sample_id} holds no {', '.join(modalities)}")
    settings = cache.info.settings
    factor = max(1, round(settings.size_px / TILE_PX))
    side = settings.size_px // factor
    step = side + GAP_PX
    size = (len(present) * step - GAP_PX, len(settings.views) * step - GAP_PX, 3)
    canvas = np.full(size, BACKGROUND, np.uint8)
    for line, name in enumerate(present):
        images = cache.arrays.read(name, [row])[0]
        for column, view in enumerate(order_views(settings.views)):
            drawn = get_modality(name).draw(images[view], dynamic=bool(settings.dynamic))
            image = Image.fromarray(centre_face(drawn, settings.views[view], BACKGROUND))
            tile = np.asarray(image.reduce(factor, (0, 0, side * factor, side * factor)))
            canvas[line * step :, column * step :][:side, :side] = tile
    return canvas


def _encode_png(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
