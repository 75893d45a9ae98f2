"""Before and after `--stabilise`: how the head of a sequence moved, and its frames with the pose of the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from preprocess.sequences.head_motion import HeadMotion, draw_unstabilised, find_head_motion, measure_changes_mm
from preprocess.viewer.pictures import MODALITY_OF, draw_png, has_picture
from preprocess.viewer.site import Site

MAX_COMPARED = 250  # frames whose depth images are compared with the first: 2 to 3 ms each
LEAST_RANGE = 2.0  # half of a curve's range in its unit, at least: what is hardly a motion should not look like one
Track = dict[str, Any]


def find_motion(site: Site, rows: Sequence[int]) -> HeadMotion | None:
    """Return the motion of the head in valid frames of a sequence; None unless the cache was built with `--stabilise`."""
    settings = site.cache.info.settings
    if not settings.stabilised or settings.dynamic or not rows:
        return None
    return find_head_motion(site.pictures.read_rows(rows, "scan_to_face"))


def can_draw_unstabilised(site: Site) -> bool:
    return site.faces and "depth" in site.cache.info.settings.modalities


def list_tracks(site: Site, rows: Sequence[int], motion: HeadMotion) -> list[Track]:
    """Return curves of how the head turned and moved, and of how still forehead and nose bridge are, for curves.js."""
    tracks = [
        _track("head turned", "°", motion.angles_deg.T, ("yaw", "pitch", "roll")),
        _track("nose tip moved", "mm", motion.shifts_mm.T, ("left", "up", "forward")),
    ]
    if "depth" not in site.cache.info.settings.modalities:
        return tracks
    settings, step = site.cache.info.settings, -(-len(rows) // MAX_COMPARED)
    view = settings.views[settings.front_view]
    first = site.pictures.read_rows(rows[:1], "depth")[0, settings.front_view]
    changes = []
    for row, move in zip(rows[::step], motion.moves[::step], strict=True):
        depth = site.pictures.read_rows([row], "depth")[0, settings.front_view]
        changes.append(measure_changes_mm(first, depth, view, move))
    lines = np.repeat(np.transpose(changes), step, axis=1)[:, : len(rows)]
    name = "forehead and nose bridge, from those of the first frame"
    return [*tracks, _track(name, "mm", lines, ("before", "stabilised"), low=0.0)]


def _track(name: str, unit: str, lines: np.ndarray, keys: Sequence[str], low: float | None = None) -> Track:
    """Return a curve for curves.js: a line for each key, f64 (keys, T), NaN = not known."""
    high = max(LEAST_RANGE, float(np.ceil(np.nanmax(np.abs(lines), initial=0).round(2))))
    values = [[None if np.isnan(value) else round(value, 2) for value in line] for line in lines.tolist()]
    low = -high if low is None else low
    return {"name": name, "unit": unit, "bars": [], "lines": values, "keys": keys, "low": low, "high": high}


def unstabilised_png(site: Site, row: int, kind: str, view: int) -> bytes | None:
    """Draw a frame with the pose of its sequence's first valid frame; None if there is no such picture.

    Raises:
        CacheError: stored bytes are missing or damaged.
    """
    cache = site.cache
    settings = cache.info.settings
    if not can_draw_unstabilised(site) or row >= len(cache.samples) or view >= len(settings.views):
        return None
    sample = cache.samples[row]
    if kind not in MODALITY_OF or not has_picture(sample, kind) or not has_picture(sample, "depth"):
        return None
    first = next((other for other in cache.frames(sample.sequence) if cache.samples[other].valid), row)
    motion = find_motion(site, [first, row])
    if motion is None:
        return None
    modality = MODALITY_OF[kind]
    images = {name: site.pictures.read(row, name)[view] for name in {"depth", modality} - {"normal"}}
    drawn = draw_unstabilised(images, settings.views[view], motion.moves[1], settings)
    return None if drawn is None else draw_png(drawn[modality], kind)
