"""Pixels against shapes whose image is known: plane, sphere, an asymmetric L in every view, checkerboards, backfaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_face import pixel_centres_mm

from preprocess.geometry.mesh import Mesh
from preprocess.rendering.cameras import build_cameras, warn_of_views
from preprocess.rendering.mip_chain import MipChain
from preprocess.rendering.views import render_views
from shared.errors import FacetError, ScanError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import FIELD_OF_VIEW_MM, RenderSettings, View, parse_views

FRONT = build_cameras((View(0),))


def make_quad(corners: list[list[float]], texture: np.ndarray | None = None) -> Mesh:
    """Two triangles over four corners given counter-clockwise from the lower left; uv covers the whole texture."""
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)[triangles] if texture is not None else None
    return Mesh(np.array(corners, np.float32), triangles, uv, texture)


def make_sphere(radius_mm: float, rings: int = 180) -> Mesh:
    theta = np.linspace(0, np.pi, rings)
    phi = np.linspace(0, 2 * np.pi, 2 * rings)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    points = radius_mm * np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], axis=-1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(2 * rings - 1), indexing="ij")
    a = (i * 2 * rings + j).ravel()
    b, c, d = a + 1, a + 2 * rings, a + 2 * rings + 1
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    return Mesh(points.astype(np.float32), triangles.astype(np.int32))


def decode_depth(depth: np.ndarray) -> np.ndarray:
    return np.where(depth > 0, (depth.astype(np.float64) - DEPTH_ZERO) * DEPTH_STEP_MM, np.nan)


def decode_normal(normal: np.ndarray) -> np.ndarray:
    return (normal.astype(np.float64) - 128) / 127


@pytest.mark.parametrize("size_px", [64, 224])
def test_tilted_plane_has_the_analytic_depth_and_normal_everywhere(size_px: int) -> None:
    # z = 0.3 x − 0.2 y + 5, larger than the field of view
    corners = [[x, y, 0.3 * x - 0.2 * y + 5] for x, y in ((-150, -150), (150, -150), (150, 150), (-150, 150))]
    views = render_views(make_quad(corners), FRONT, size_px=size_px)
    x, y = pixel_centres_mm(size_px)
    expected = 0.3 * x[None, :] - 0.2 * y[:, None] + 5
    assert np.abs(decode_depth(views.depth[0]) - expected).max() <= DEPTH_STEP_MM / 2 + 1e-4
    n = np.array([-0.3, 0.2, 1.0]) / np.linalg.norm([-0.3, 0.2, 1.0])
    assert (views.normal[0] == (np.rint(127 * n) + 128).astype(np.uint8)).all()
    assert views.texture is None


@pytest.mark.parametrize("yaw", [0.0, 20.0, -35.0, 90.0])
@pytest.mark.parametrize("pitch", [0.0, 25.0])
def test_sphere_looks_the_same_from_everywhere(yaw: float, pitch: float) -> None:
    radius, size = 60.0, 224
    views = render_views(make_sphere(radius), build_cameras((View(yaw, pitch),)), size_px=size)
    x, y = pixel_centres_mm(size)
    distance = np.hypot(x[None, :], y[:, None])
    hit = views.depth[0] > 0
    pixel = FIELD_OF_VIEW_MM / size
    assert (hit == (distance < radius))[np.abs(distance - radius) > 0.25 * pixel].all()
    inside = distance < radius - 1
    z = np.sqrt(np.maximum(radius**2 - distance**2, 0))
    # a sphere of 180 rings is at most r(1 − cos(π/358)) = 2.3 µm·r inside the ideal one
    assert np.abs(decode_depth(views.depth[0]) - z)[inside & (distance < 50)].max() < 0.06
    normal = decode_normal(views.normal[0])
    ideal = np.stack([np.broadcast_to(x[None, :], z.shape), np.broadcast_to(y[:, None], z.shape), z], -1) / radius
    assert np.abs(normal - ideal)[distance < 50].max() < 0.02
    assert (views.normal[0][~hit] == 0).all()


@pytest.mark.parametrize("view", [View(0), View(35, 20)], ids=str)
def test_crop_sphere_cuts_a_plane_along_a_circle(view: View) -> None:
    """Two large triangles; the edge is the mean of 64 rays a pixel within 2 levels."""
    radius, size = 70.0, 96
    corners = [[x, y, 0.4 * x - 0.2 * y + 25] for x, y in ((-150, -150), (150, -150), (150, 150), (-150, 150))]
    ramp = np.rint(np.linspace(0, 255, 2048)).astype(np.uint8)
    texture = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], ramp[None, ::-1]), -1)
    cameras = build_cameras((view,))
    views = render_views(make_quad(corners, texture), cameras, size_px=size, radius_mm=radius)
    assert views.texture is not None

    def look(count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return whether count² rays end within the sphere, and the colours there."""
        x, y = np.meshgrid(*pixel_centres_mm(count))
        right, up, toward = cameras.world_to_view[0]
        normal, origin = np.array([-0.4, 0.2, 1]), x[..., None] * right + y[..., None] * up
        met = origin + ((25 - origin @ normal) / (toward @ normal))[..., None] * toward
        u, v = (met[..., 0] + 150) / 300, (150 - met[..., 1]) / 300
        return (met**2).sum(-1) <= radius**2, np.clip(np.stack([u, v, 1 - u], -1) * 2048 - 0.5, 0, 2047) * 255 / 2047

    hit, _ = look(size)
    assert ((views.depth[0] > 0) == hit).all() and 0.1 < hit.mean() < 0.4
    inside, colours = look(8 * size)
    shape = (size, 8, size, 8, -1)
    num = inside.reshape(shape).sum((1, 3))
    mean = (colours * inside[..., None]).reshape(shape).sum((1, 3)) / np.maximum(num, 1)
    edge = hit & (num[..., 0] < 64)
    assert edge.sum() > 80
    assert np.abs(views.texture[0] - mean)[hit].max() < 2
    assert not views.texture[0][~hit].any()


def test_what_is_outside_the_crop_sphere_hides_nothing_and_what_is_inside_stays() -> None:
    sphere = make_sphere(60, 60)
    whole = render_views(sphere, FRONT, size_px=64)
    wall = make_quad([[-90, -90, 62], [90, -90, 62], [90, 90, 62], [-90, 90, 62]])
    both = Mesh(
        np.concatenate([sphere.vertices_mm, wall.vertices_mm]),
        np.concatenate([sphere.triangles, wall.triangles + np.int32(len(sphere.vertices_mm))]),
    )
    seen = render_views(both, FRONT, size_px=64, radius_mm=61)
    np.testing.assert_array_equal(seen.depth, whole.depth)
    np.testing.assert_array_equal(seen.normal, whole.normal)


def letter_l_texture() -> np.ndarray:
    """An L, red on white: a stem on the image's left, a foot at its lower right; no mirror or turn of it is itself."""
    texture = np.full((80, 80, 3), 255, np.uint8)
    texture[10:70, 15:25] = texture[60:70, 15:60] = (255, 0, 0)
    return texture


@pytest.mark.parametrize("view", [View(0), View(20), View(-20), View(0, 15), View(40, -20)], ids=str)
def test_asymmetric_l_is_where_projection_puts_it(view: View) -> None:
    """Each pixel of a flat L, in every view, against the L looked up by an independent inverse projection."""
    half = 40.0
    corners = [[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]]
    image = render_views(make_quad(corners, letter_l_texture()), build_cameras((view,)), size_px=224).texture
    assert image is not None
    x, y = pixel_centres_mm(224)
    yaw, pitch = np.deg2rad(view.yaw_deg), np.deg2rad(view.pitch_deg)
    # A point (X, Y, 0) is seen at x = X cos(yaw), y = Y cos(pitch) − X sin(yaw) sin(pitch): solved for X and Y
    face_x = np.broadcast_to(x[None, :] / np.cos(yaw), (224, 224))
    face_y = (y[:, None] + face_x * np.sin(yaw) * np.sin(pitch)) / np.cos(pitch)
    on_plane = (np.abs(face_x) < half) & (np.abs(face_y) < half)
    column, row = (face_x + half), (half - face_y)  # one texel a mm
    stem = (column > 15) & (column < 25) & (row > 10) & (row < 70)
    foot = (column > 15) & (column < 60) & (row > 60) & (row < 70)
    is_red = (image[0, ..., 0] > 200) & (image[0, ..., 1] < 128)
    disagreement = (is_red != (on_plane & (stem | foot))).mean()
    assert disagreement < 0.006  # only pixels on an outline
    assert is_red.sum() > 500


def test_yaw_moves_the_camera_to_the_subjects_left() -> None:
    """A bar on the subject's left cheek, behind the nose: from the left it comes to the middle, from the right it leaves."""
    bar = make_quad([[55, -75, -70], [75, -75, -70], [75, 75, -70], [55, 75, -70]])
    columns = {}
    for yaw in (20, 0, -20):
        depth = render_views(bar, build_cameras((View(yaw),)), size_px=224).depth[0]
        columns[yaw] = np.nonzero(depth)[1].mean()
    assert columns[0] > 112  # the subject's left is on the right of the image
    expected = {
        yaw: 111.5 + (65 * np.cos(np.deg2rad(yaw)) + 70 * np.sin(np.deg2rad(yaw))) / 0.9 for yaw in (20, 0, -20)
    }
    assert columns == pytest.approx(expected, abs=0.6)


def test_nearest_surface_wins_and_a_surface_seen_from_behind_faces_the_viewer() -> None:
    def square(half: float, z: float) -> list[list[float]]:
        return [[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]]

    vertices = np.array(square(60, -10) + square(30, 7), np.float32)
    quad = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    mesh = Mesh(vertices, np.concatenate([quad, quad[:, ::-1] + 4]))  # the nearer one is wound the wrong way round
    views = render_views(mesh, FRONT, size_px=64)
    z = decode_depth(views.depth[0])
    assert z[32, 32] == pytest.approx(7)
    assert z[32, 18] == pytest.approx(-10)
    assert (views.normal[0][views.depth[0] > 0] == (128, 128, 255)).all()


@pytest.mark.parametrize("in_front", [0, 1, 2, 3])
def test_where_one_surface_hides_another_a_pixel_is_the_mean_of_nine_samples(in_front: int) -> None:
    """A white sheet before a black one; its left edge is so far into a column of pixels that it covers 0 to 3 of 3 samples."""
    pixel = FIELD_OF_VIEW_MM / 64
    edge = pixel * (3.5 - in_front) / 3
    sheets = [make_quad([[x, -70, z], [80, -70, z], [80, 70, z], [x, 70, z]]) for x, z in ((-80, 0), (edge, 9))]
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:, 32:] = 252
    uv = np.array([[[0.2, 0.5]] * 3] * 2 + [[[0.8, 0.5]] * 3] * 2, np.float32)
    uv += np.tile(np.array([[0, 0], [0.1, 0], [0.1, 0.1]], np.float32), (4, 1, 1))
    mesh = Mesh(
        np.concatenate([sheet.vertices_mm for sheet in sheets]),
        np.concatenate([sheets[0].triangles, sheets[1].triangles + np.int32(4)]),
        *(uv, texture),
    )
    image = render_views(mesh, FRONT, size_px=64).texture
    assert image is not None
    assert image[0, 32, 31:34, 0].tolist() == [1, 84 * in_front or 1, 252]


def test_fine_checkerboard_does_not_alias() -> None:
    """Texels of 1/8 mm under pixels of 0.9 mm: every pixel must show the mean grey, not a moiré."""
    texture = np.indices((1600, 1600)).sum(0) % 2 * 255
    mesh = make_quad(
        [[-100, -100, 0], [100, -100, 0], [100, 100, 0], [-100, 100, 0]],
        np.repeat(texture[..., None], 3, 2).astype(np.uint8),
    )
    image = render_views(mesh, build_cameras((View(0), View(20))), size_px=224).texture
    assert image is not None
    assert np.abs(image[0, 5:-5, 5:-5].astype(int) - 127.5).max() < 4
    assert np.abs(image[1, 5:-5, 15:-15].astype(int) - 127.5).max() < 4


def test_texture_matches_a_brute_force_area_average() -> None:
    """A skin-like texture of 1040 × 1392 texels under 224 px against the exact mean over each pixel's footprint."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(60, 220, (87, 65, 3))
    texture = np.kron(coarse, np.ones((16, 16, 1)))[:1392, :1040] + rng.normal(0, 25, (1392, 1040, 3))
    texture = np.clip(texture, 0, 255).astype(np.uint8)
    half_x, half_y = 75.0, 75.0 * 1392 / 1040
    mesh = make_quad([[-half_x, -half_y, 0], [half_x, -half_y, 0], [half_x, half_y, 0], [-half_x, half_y, 0]], texture)
    image = render_views(mesh, FRONT, size_px=224).texture
    assert image is not None
    # The mean over a pixel's footprint, from an integral image with fractional corners (bilinear in the integral).
    integral = np.pad(texture.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    edges = (np.arange(225) - 112) * 0.9
    columns = (edges + half_x) / (2 * half_x) * 1040
    rows = (edges + half_y) / (2 * half_y) * 1392
    inside_x = (columns[:-1] > 0) & (columns[1:] < 1040)
    inside_y = (rows[:-1] > 0) & (rows[1:] < 1392)

    def interpolate(values: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
        at = np.clip(at, 0, values.shape[axis] - 1)
        low = np.minimum(at.astype(int), values.shape[axis] - 2)
        weight = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        mean: np.ndarray = np.take(values, low, axis) * (1 - weight) + np.take(values, low + 1, axis) * weight
        return mean

    corner_sums = interpolate(interpolate(integral, rows, 0), columns, 1)
    sums = corner_sums[1:, 1:] - corner_sums[:-1, 1:] - corner_sums[1:, :-1] + corner_sums[:-1, :-1]
    expected = sums / ((columns[1] - columns[0]) * (rows[1] - rows[0]))
    box = np.ix_(inside_y, inside_x)
    error = image[0].astype(float)[box] - expected[box]
    psnr = 10 * np.log10(255**2 / (error**2).mean())
    assert psnr > 34


def test_vertex_colours_are_drawn_where_there_is_no_texture() -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 255, 0], [255, 0, 0]], np.uint8)
    quad = make_quad([[-50, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]])
    image = render_views(Mesh(quad.vertices_mm, quad.triangles, colors=colors), FRONT, size_px=112).texture
    assert image is not None
    x, _ = pixel_centres_mm(112)
    green = (x + 50) / 100 * 255
    drawn = np.abs(x) < 49
    assert np.abs(image[0, 56, drawn, 1] - green[drawn]).max() < 1.5


def test_a_black_surface_is_a_surface() -> None:
    """Pupils and nostrils: 0,0,0 in a cache is the mark of what shows no surface."""
    corners: list[list[float]] = [[-40, -40, 0], [40, -40, 0], [40, 40, 0], [-40, 40, 0]]
    for mesh in (
        make_quad(corners, np.zeros((4, 4, 3), np.uint8)),
        replace(make_quad(corners), colors=np.zeros((4, 3), np.uint8)),
    ):
        views = render_views(mesh, FRONT, size_px=64)
        assert views.texture is not None
        assert ((views.texture[0].max(axis=-1) > 0) == (views.depth[0] > 0)).all()
        assert views.texture.max() == 1


def test_a_view_without_a_face_is_an_error_that_names_it() -> None:
    thin = make_quad([[-50, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]])
    with pytest.raises(ScanError, match="view 90"):
        render_views(thin, build_cameras((View(0), View(90))), size_px=64)


def test_same_bytes_every_time() -> None:
    mesh = make_sphere(70, 60)
    cameras = build_cameras((View(0), View(33, 12)))
    first, second = (render_views(mesh, cameras, size_px=96) for _ in range(2))
    assert (first.depth == second.depth).all()
    assert (first.normal == second.normal).all()


def test_pyramid_of_odd_sizes_ends_at_one_texel() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    pyramid = MipChain(texture)
    levels = [pyramid.level(k) for k in range(len(pyramid))]
    assert [level.shape[:2] for level in levels] == [(7, 5), (4, 3), (2, 2), (1, 1)]
    assert (levels[0] == texture).all()
    assert np.abs(levels[1][0, 0] - texture[:2, :2].mean((0, 1))).max() <= 0.5
    assert np.abs(levels[1][3, 2] - texture[6, 4]).max() <= 0.5  # the odd corner stands for itself
    assert np.abs(levels[3].astype(float) - levels[2].mean((0, 1))).max() <= 0.5


def test_views_are_parsed_and_refused() -> None:
    assert parse_views("0, 20,-20,0:15") == (View(0), View(20), View(-20), View(0, 15))
    assert ",".join(map(str, parse_views("0,20,0:15"))) == "0,20,0:15"
    assert RenderSettings().mm_per_px == 0.9 and RenderSettings(size_px=112).mm_per_px == 1.8
    with pytest.raises(FacetError, match="found 'left'"):
        parse_views("0,left")


def test_views_from_behind_are_said() -> None:
    assert warn_of_views(parse_views("0,90,-90,0:90")) == ""
    assert "view 180 looks at the face from behind" in warn_of_views(parse_views("0,180"))
    assert "views -91, 120:10 look at" in warn_of_views(parse_views("-91,0,120:10"))
