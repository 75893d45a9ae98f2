"""Draw the colour of a mesh: most pixels from one look at the texture, those at edges from several samples.

A face scan has about five texels to a pixel at 224 px: read at one point they alias. Hence a pyramid of half-sized textures
(mip_chain.py). A pixel whose neighbours continue its texture is the mean over its footprint there, read at a few points of
one level (smooth_pixels.py). The others, where one surface hides another and at the borders of texture charts, are the mean
of several samples, each of its own triangle (edge_samples.py). Where a level's texels hold more than a triangle's own chart
(charts.py), the footprint of a sample is averaged texel by texel (border_samples.py).
"""

from __future__ import annotations

import numpy as np

from preprocess.geometry.mesh import Mesh
from preprocess.geometry.rasterise import Fragments, sample_cells
from preprocess.rendering.border_samples import add_border_samples
from preprocess.rendering.charts import find_charts
from preprocess.rendering.edge_samples import add_edge_samples, write_means
from preprocess.rendering.mip_chain import MipChain
from preprocess.rendering.smooth_pixels import draw_smooth_pixels
from preprocess.rendering.surface_pixels import draw_vertex_colors


class SurfaceColours:
    """A mesh's colours, made ready to be drawn from several directions.

    A triangle without texture coordinates is drawn in its vertices' colours, else in UNTEXTURED_GREY.

    Args:
        incident: starts and corners of the mesh's triangles, by `find_corners`.
        closed: bool (N,), the vertices around which these are one circle, by `fan_normals`.
    """

    def __init__(self, mesh: Mesh, incident: tuple[np.ndarray, np.ndarray], closed: np.ndarray) -> None:
        self._mesh = mesh
        self._mips = MipChain(mesh.texture) if mesh.texture is not None else None
        if self._mips is not None:
            assert mesh.uv is not None
            charts = find_charts(mesh, incident, closed, self._mips.heights, self._mips.widths)
            self._charts = (charts.marks, charts.starts)
            self._colors = np.empty((0, 3), np.uint8) if mesh.colors is None else np.ascontiguousarray(mesh.colors)

    def draw(self, fragments: Fragments, place: np.ndarray, image: np.ndarray) -> None:
        """Write the colour of each pixel that shows a surface into u8 (H, W, 3).

        Where its neighbours continue its texture, it is filtered to the whole pixel. Elsewhere it is the mean of
        fragments.samples² samples, at most 15²; those that meet no surface do not count.

        Args:
            place: f32 (H, W, 2), u and v in the middle of each pixel, by `draw_geometry`.
        """
        mesh = self._mesh
        seen = (fragments.column, fragments.row, mesh.triangles)
        numbers = np.empty(fragments.triangle.shape, np.int32)
        if self._mips is None:
            assert mesh.colors is not None
            covered = fragments.triangle >= 0
            num = int(np.count_nonzero(covered))
            numbers[:] = -1
            numbers[covered] = np.arange(num)
            triangle = sample_cells(fragments, mesh.triangles, numbers, num)
            draw_vertex_colors(numbers, triangle, *seen, mesh.colors, fragments.samples, image)
            return
        assert mesh.uv is not None
        mips = self._mips
        picture = (mips.texture, mips.coarser, mips.starts, mips.heights, mips.widths)
        num = draw_smooth_pixels(fragments.triangle, place, *picture, *self._charts, image, numbers)
        triangle = sample_cells(fragments, mesh.triangles, numbers, num)
        sums = np.empty((num, 3), np.uint64)
        mixed, footprints = np.empty((triangle.size, 5), np.int32), np.empty((triangle.size, 6))
        settings = (self._colors, fragments.samples)
        num_mixed = add_edge_samples(
            *(numbers, triangle, *seen, mesh.uv, *picture, *self._charts, *settings, sums, mixed, footprints)
        )
        levels = (mips.texture, mips.coarser, mips.starts, mips.widths)
        add_border_samples(mixed[:num_mixed], footprints[:num_mixed], *seen, *levels, *self._charts, sums)
        write_means(numbers, sums, image)
