"""The surface of a grid of measured points, as range scanners and depth cameras give it."""

from __future__ import annotations

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.triangles import renumber
from shared.errors import ScanError

# A surface seen under more than 80° is hardly measured at all, and its edges are 1 / cos 80° = 5.8 times as long as the
# grid's step. What is longer spans a jump in depth: from the wing of the nose to the cheek, from the chin to the neck.
_MAX_EDGE_STEPS = 6.0
# A step along a row or a column must be this many times as long along its own axis as along the other one. A grid of n columns
# that is read as one of n + 1 moves by a column with each row, so 1 is too little; on real surfaces the median across is 0.
_MIN_STRAIGHT = 2.0


def grid_to_mesh(points: np.ndarray, uv: np.ndarray, step_mm: np.ndarray | None = None) -> Mesh:
    """Return the grid's surface: two triangles a cell, none across a hole or a jump in depth, without texture.

    A cell with three measured corners gives one triangle; a whole one is split along its shorter diagonal. Triangles are
    counter-clockwise where columns run to the right and rows upward.

    Args:
        points: f64 (R, C, 3), mm; NaN where nothing was measured.
        uv: f64 (R, C, 2), v from the bottom.
        step_mm: f64 (R, C), distance of neighbours on a surface that faces the scanner; None: the median of those across the
            line of sight (x and y).
    Raises:
        ScanError: no cell has three measured corners; or columns do not run to the right (+x), or rows not upward (+y).
    """
    valid = np.isfinite(points).all(axis=-1)
    points = np.where(valid[..., None], points, np.nan)  # NaN edges are never short enough
    _check_order(points)
    flat = points.reshape(-1, 3)
    index = np.arange(valid.size).reshape(valid.shape)
    squares = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]  # lower left, counter-clockwise
    measured = np.sum([valid.ravel()[corner] for corner in squares], axis=0) >= 3
    corners = [corner[measured] for corner in squares]
    p, q, r, s = (flat[corner] for corner in corners)
    rising, falling = _length(p - r), _length(q - s)
    rising_shorter = np.where(np.isnan(falling), True, rising <= falling) & ~np.isnan(rising)
    ways = [np.stack([corners[i] for i in way], -1) for way in ((0, 1, 2, 0, 2, 3), (0, 1, 3, 1, 2, 3))]
    triangles = np.where(rising_shorter[..., None], *ways).reshape(-1, 3)
    edges = flat[triangles]
    longest = np.max([_length(edges[:, i] - edges[:, i - 1]) for i in range(3)], axis=0)
    step = _median_step_mm(points) if step_mm is None else step_mm.ravel()[triangles].max(axis=1)
    with np.errstate(invalid="ignore"):
        triangles = triangles[longest <= _MAX_EDGE_STEPS * step]
    if not len(triangles):
        raise ScanError(f"no surface: {int(valid.sum())} of {valid.size} points were measured, no three of a cell")
    used, renumbered = renumber(triangles, valid.size)
    with np.errstate(over="ignore", invalid="ignore"):  # garbled bytes may be signalling NaNs; Mesh refuses them
        return Mesh(
            flat[used].astype(np.float32), renumbered, np.ascontiguousarray(uv.reshape(-1, 2)[triangles], np.float32)
        )


def _check_order(points: np.ndarray) -> None:
    """Check by the median step between neighbours that columns run along +x, and rows along +y.

    Numbers of rows and columns that are exchanged, and planes that are stored column by column, put points that are no
    neighbours beside each other, or exchange the axes. Points keep their places then, but not their pixels.
    """
    # To the next column; to the next row.
    steps = [np.diff(points[..., :2], axis=axis).reshape(-1, 2) for axis in (1, 0)]
    medians = [np.median(step[known], axis=0) for step in steps if (known := np.isfinite(step).all(axis=1)).any()]
    if len(medians) < 2:
        return
    (x, across), (aside, y) = medians
    if not (x > _MIN_STRAIGHT * abs(across) and y > _MIN_STRAIGHT * abs(aside)):
        num_rows, num_columns = points.shape[:2]
        raise ScanError(
            f"no grid of {num_rows} rows × {num_columns} columns: to the next column its points move by x {x:+.3g}, y "
            f"{across:+.3g} mm (expected along +x), to the next row upward by x {aside:+.3g}, y {y:+.3g} mm (expected along "
            "+y); write the file again, with its rows, columns and points in the order of the format"
        )


def pixel_uv(num_rows: int, num_columns: int) -> np.ndarray:
    """Return uv f64 (R, C, 2) of the pixels' centres; row 0 is at the top."""
    u, v = (np.arange(num_columns) + 0.5) / num_columns, 1 - (np.arange(num_rows) + 0.5) / num_rows
    return np.stack(np.meshgrid(u, v), axis=-1)


def _length(edge: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.einsum("...c,...c->...", edge, edge)))


def _median_step_mm(points: np.ndarray) -> float:
    along_rows = _length(np.diff(points[..., :2], axis=1)).ravel()
    along_columns = _length(np.diff(points[..., :2], axis=0)).ravel()
    steps = np.concatenate([along_rows, along_columns])
    return float(np.median(known)) if len(known := steps[np.isfinite(steps)]) else 0.0
