"""The tip of the nose: the point of a face that stands out most, between eyes and mouth, near the midline."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from preprocess.alignment.depth_map import DepthMap, Surface
from preprocess.geometry.triangles import neighbour_means
from shared.errors import ScanError

_STEP_MM = 1.0
_MEDIAN_CELLS = 5
_FIT_RADIUS_MM = 7.0
_MEASURED_EDGES = 4000


def find_nose_tip(
    surface: Surface, pose: np.ndarray, *, x_mm: tuple[float, float], y_mm: tuple[float, float]
) -> np.ndarray:
    """Return the most forward point of the surface in a window of a frame.

    The nearest cell of a median-filtered depth map, then the apex of a paraboloid through its surroundings: neither one
    vertex of noise nor the spacing of the vertices decides.

    Args:
        pose: (4, 4) rigid, mesh → frame. x_mm, y_mm: the window in that frame.
    Returns:
        (3,) in the frame, mm.
    Raises:
        ScanError: there is no surface in the window.
    """
    depth = surface.cast(
        pose,
        x_mm=(x_mm[0] - _FIT_RADIUS_MM, x_mm[1] + _FIT_RADIUS_MM),
        y_mm=(y_mm[0] - _FIT_RADIUS_MM, y_mm[1] + _FIT_RADIUS_MM),
        step_mm=_STEP_MM,
    )
    known = np.isfinite(depth.z_mm)
    x, y = depth.grid()
    in_window = known & (x >= x_mm[0]) & (x <= x_mm[1]) & (y >= y_mm[0]) & (y <= y_mm[1])
    if not in_window.any():
        raise ScanError("no surface where the nose should be; is it a face, and is it whole?")
    low = float(depth.z_mm[known].min())
    filtered = _median_filter(np.where(known, depth.z_mm, low))
    smooth = ndimage.gaussian_filter(filtered, 1.5 / _STEP_MM, mode="nearest")
    row, column = np.unravel_index(np.argmax(np.where(in_window, smooth, -np.inf)), smooth.shape)
    cell = np.array([x[row, column], y[row, column], filtered[row, column]])
    return _fit_apex(DepthMap(np.where(known, filtered, np.nan), depth.x0_mm, depth.y0_mm, _STEP_MM), cell)


def _median_filter(z_mm: np.ndarray) -> np.ndarray:
    """Return the median of the cells around each, as `ndimage.median_filter` does in more than twice the time."""
    padded = np.pad(z_mm, _MEDIAN_CELLS // 2, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (_MEDIAN_CELLS, _MEDIAN_CELLS)).reshape(*z_mm.shape, -1)
    middle = _MEDIAN_CELLS**2 // 2
    return np.asarray(np.partition(around, middle)[..., middle])


def _fit_apex(depth: DepthMap, cell: np.ndarray) -> np.ndarray:
    """Return the apex of z = a + bx + cy + dx² + exy + fy² around a cell, or the cell if there is no apex nearby."""
    x, y = depth.grid()
    dx, dy = x - cell[0], y - cell[1]
    near = (np.hypot(dx, dy) <= _FIT_RADIUS_MM) & np.isfinite(depth.z_mm)
    if near.sum() < 12:
        return cell
    dx, dy, z = dx[near], dy[near], depth.z_mm[near]
    terms = np.stack([np.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy], axis=1)
    a, b, c, d, e, f = np.linalg.lstsq(terms, z, rcond=None)[0]
    curvature = np.array([[2 * d, e], [e, 2 * f]])
    if not (np.linalg.eigvalsh(curvature) < -1e-3).all():
        return cell
    apex = -np.linalg.solve(curvature, [b, c])
    if np.linalg.norm(apex) > 4.0:
        return cell
    height = a + b * apex[0] + c * apex[1] + 0.5 * apex @ curvature @ apex
    return np.array([cell[0] + apex[0], cell[1] + apex[1], height])


def remove_spikes(vertices_mm: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Move single vertices far off all neighbours back to the neighbours' mean. For measuring, not for rendering.

    Returns:
        f32 (N, 3): vertices further than 5 mm and three edge lengths from their neighbours' mean are replaced by it.
    """
    some = triangles[:: max(len(triangles) // _MEASURED_EDGES, 1)]
    edges = vertices_mm[some].astype(np.float64) - vertices_mm[some[:, [1, 2, 0]]]
    typical = float(np.median(np.linalg.norm(edges, axis=2)))
    far = np.zeros(len(vertices_mm), bool)
    for _ in range(2):  # first what is far from all, then without those what remains
        means = neighbour_means(vertices_mm, triangles, far)
        distance = np.sqrt(((vertices_mm - means) ** 2).sum(axis=1))
        far |= distance > max(5.0, 3 * typical)  # not where there is no neighbour: NaN
    return np.where(far[:, None] & np.isfinite(means), means, vertices_mm).astype(np.float32)
