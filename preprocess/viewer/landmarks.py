"""A sample's landmarks over its pictures, as SVG."""

from __future__ import annotations

import numpy as np

from preprocess.rendering.cameras import build_cameras
from preprocess.viewer.site import Site
from shared.schema import FIELD_OF_VIEW_MM

RADIUS = 0.75  # of a dot, in percent of the picture


def count_landmarks(site: Site, row: int) -> int:
    """Count the known landmarks of a row.

    Raises:
        CacheError: stored bytes are missing or damaged.
    """
    if not site.cache.info.num_landmarks or not site.cache.samples[row].valid or not site.faces:
        return 0
    return int(np.isfinite(site.pictures.read(row, "landmarks")).all(1).sum())


def project_landmarks(landmarks: np.ndarray, world_to_view: np.ndarray) -> np.ndarray:
    """Return where known landmarks (n, 3) in the face frame, mm, are seen, f64 (m, 2).

    In percent of the picture, from its top left corner.
    """
    known = landmarks[np.isfinite(landmarks).all(1)].astype(np.float64)
    x, y, _ = world_to_view @ known.T
    return 50 + 100 / FIELD_OF_VIEW_MM * np.stack([x, -y], axis=1)


def landmarks_svg(site: Site, row: int, view: int) -> bytes | None:
    """Draw a row's landmarks as seen from a view; None if there are none."""
    views = site.cache.info.settings.views
    if row >= len(site.cache.samples) or view >= len(views) or not count_landmarks(site, row):
        return None
    points = project_landmarks(site.pictures.read(row, "landmarks"), build_cameras((views[view],)).world_to_view[0])
    dots = "".join(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{RADIUS}"/>' for x, y in points)
    style = 'fill="#00e0ff" stroke="#003a45" stroke-width="0.3"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><g {style}>{dots}</g></svg>'.encode()
