"""Range images of FRGC and depth images with a camera, against spheres whose points are known."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.datasets import DATASETS
from preprocess.readers.depth_image import PinholeCamera, read_camera, read_depth_image
from preprocess.readers.surface import read_surface
from shared.errors import FacetError, ScanError

CAMERA = PinholeCamera(fx=300.0, fy=280.0, cx=48.5, cy=33.25, step_mm=0.1)
ROWS, COLUMNS = 70, 100
# In the mesh's axes: to the right, upward, toward the camera.
CENTRE_MM, RADIUS_MM = np.array([20.0, 12.0, -600.0]), 60.0


def sphere_depth(camera: PinholeCamera, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Depth z (rows, columns) at which each pixel's ray first meets the sphere; NaN where it passes."""
    column, row = np.meshgrid(np.arange(columns), np.arange(rows))
    rays = np.stack([(column - camera.cx) / camera.fx, -(row - camera.cy) / camera.fy, -np.ones((rows, columns))], -1)
    a, b, c = (rays**2).sum(-1), rays @ CENTRE_MM, CENTRE_MM @ CENTRE_MM - RADIUS_MM**2
    with np.errstate(invalid="ignore"):
        return np.asarray((b - np.sqrt(b**2 - a * c)) / a)


def to_levels(depth_mm: np.ndarray, step_mm: float = CAMERA.step_mm) -> np.ndarray:
    return np.nan_to_num(np.rint(depth_mm / step_mm), nan=0).astype(np.uint16)


def write_depth(path: Path, levels: np.ndarray) -> Path:
    Image.fromarray(levels).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_sphere_seen_by_a_pinhole_camera(tmp_path: Path, name: str) -> None:
    depth = sphere_depth(CAMERA)
    mesh = read_depth_image(write_depth(tmp_path / name, to_levels(depth)), CAMERA)
    points = mesh.vertices_mm.astype(float)
    distance = np.linalg.norm(points - CENTRE_MM, axis=1)
    assert np.abs(distance - RADIUS_MM).max() < 0.3  # at the rim half a level is multiplied by the slant
    assert np.abs(np.median(distance) - RADIUS_MM) < 0.02
    seen = np.isfinite(depth).sum()
    assert 0.97 * seen < len(points) <= seen
    corners = points[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(1) - CENTRE_MM
    assert ((normals * outward).sum(1) > 0).mean() > 0.999
    # The surface covers once what the camera sees of it, a cap of the sphere, but for the last pixel before the rim.
    area = 2 * np.pi * RADIUS_MM**2 * (1 - RADIUS_MM / np.linalg.norm(CENTRE_MM))
    assert 0.75 * area < np.linalg.norm(normals, axis=1).sum() / 2 < 1.02 * area


def test_colours_lie_where_the_pixels_saw_them(tmp_path: Path) -> None:
    """A colour image of the same view, of twice as many pixels: each vertex takes the pixel it came from."""
    levels = to_levels(sphere_depth(CAMERA))
    path = write_depth(tmp_path / "a.png", levels)
    Image.new("RGB", (2 * COLUMNS, 2 * ROWS)).save(tmp_path / "colour.png")
    mesh = read_depth_image(path, CAMERA, texture=tmp_path / "colour.png")
    assert mesh.texture is not None and mesh.texture.shape == (2 * ROWS, 2 * COLUMNS, 3)
    assert mesh.uv is not None
    x, y, z = mesh.vertices_mm[mesh.triangles].reshape(-1, 3).T.astype(float)
    u, v = mesh.uv.reshape(-1, 2).T.astype(float)
    np.testing.assert_allclose(u * COLUMNS - 0.5, CAMERA.cx + CAMERA.fx * x / -z, atol=1e-2)
    np.testing.assert_allclose((1 - v) * ROWS - 0.5, CAMERA.cy - CAMERA.fy * y / -z, atol=1e-2)
    assert mesh.notes == ()
    Image.new("RGB", (1920, 1080)).save(tmp_path / "colour.png")  # the colour camera's own view
    (note,) = read_depth_image(path, CAMERA, texture=tmp_path / "colour.png").notes
    assert f"1920 × 1080 pixels, its grid {COLUMNS} × {ROWS}" in note


def test_the_background_and_jumps_are_no_surface(tmp_path: Path) -> None:
    depth = sphere_depth(CAMERA)
    wall = np.where(np.isfinite(depth), depth, 1100.0)
    path = write_depth(tmp_path / "a.png", to_levels(wall))
    both = read_depth_image(path, CAMERA)
    on_wall = both.vertices_mm[:, 2] < -1000
    assert on_wall.any() and (on_wall[both.triangles].sum(1) % 3 == 0).all()  # no triangle between the two
    alone = read_depth_image(path, CAMERA, max_depth_mm=900)
    assert len(alone.vertices_mm) == (~on_wall).sum()
    far = dataclasses.replace(CAMERA, step_mm=1.0)
    path = write_depth(tmp_path / "room.png", to_levels(np.where(np.isfinite(depth), depth, 2500.0), 1.0))
    with pytest.raises(ScanError, match=r"depths of 5\d\d to 2500 mm; give max_depth_mm"):
        read_depth_image(path, far)
    levels = to_levels(depth)
    levels[levels == 0] = 65535
    assert len(read_depth_image(write_depth(path, levels), CAMERA).triangles) == len(alone.triangles)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("camera.json", {"fx": 600, "fy": 610.5, "cx": 320.25, "cy": "240", "depth_scale": 0.001}),
        ("rs.json", {"fx": 600, "fy": 610.5, "ppx": 320.25, "ppy": 240, "width": 640, "coeffs": [0, 0, 0, 0, 0]}),
        ("o3d.json", {"depth_scale": 1000, "intrinsic_matrix": [600, 0, 0, 0, 610.5, 0, 320.25, 240, 1]}),
        ("rows.json", {"camera_matrix": {"data": [600, 0, 320.25, 0, 610.5, 240, 0, 0, 1]}, "depth_scale": 1}),
        ("k.json", {"K": [[600, 0, 320.25], [0, 610.5, 240], [0, 0, 1]]}),
        ("a.csv", "fx,600\nfy,610.5\ncx,320.25\ncy,240\n"),
        ("b.csv", "fx;fy;cx;cy\n600;610.5;320.25;240\n"),
        ("c.txt", "FX: 600\nfy = 610.5\nPPX 320.25\nppy 240\n"),
    ],
)  # fmt: skip
def test_files_of_cameras(tmp_path: Path, name: str, content: object) -> None:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert dataclasses.replace(read_camera(path), width=0) == PinholeCamera(600, 610.5, 320.25, 240, 1.0)


def test_a_camera_of_another_image_is_refused(tmp_path: Path) -> None:
    path, size = write_depth(tmp_path / "a.png", to_levels(sphere_depth(CAMERA))), {"width": COLUMNS, "height": ROWS}
    numbers = {"fx": CAMERA.fx, "fy": CAMERA.fy, "cx": CAMERA.cx, "cy": CAMERA.cy, "depth_scale": CAMERA.step_mm}
    plain = read_depth_image(path, CAMERA)
    for more, message in (
        (size, ""),
        ({"image_width": 2 * COLUMNS}, "200 × 70"),
        (size | {"height": 480}, "100 × 480"),
        ({"cx": CAMERA.cy, "cy": CAMERA.cx}, "exchanged"),
    ):
        (tmp_path / "camera.json").write_text(json.dumps(numbers | more))
        camera = read_camera(tmp_path / "camera.json")
        if message:
            with pytest.raises(ScanError, match=rf"a\.png: .*100 × 70 pixels, .* {message}"):
                read_depth_image(path, camera)
        else:
            np.testing.assert_allclose(read_depth_image(path, camera).vertices_mm, plain.vertices_mm)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("[1, 2]", "the camera's fx, fy, cx, cy is not known"),
        ('{"fx": 1, "fy": 1, "cx": 0}', "the camera's cy is not known; give fx"),
        ('{"fx": 0, "fy": 1, "cx": 0, "cy": 0}', "must be positive"),
        ('{"fx": 1e300, "fy": 1, "cx": 0, "cy": 0}', "fx '1e.300', expected a number"),
        ('{"fx": NaN, "fy": 1, "cx": 0, "cy": 0}', "expected a number"),
        ('{"fx": 1', "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_garbled_cameras_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "camera.json").write_text(content)
    with pytest.raises(ScanError, match=rf"camera\.json: .*{message}"):
        read_camera(tmp_path / "camera.json")


def test_images_that_are_no_depth_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    with pytest.raises(ScanError, match="mode RGB, expected depth as 16-bit grey"):
        read_depth_image(path, CAMERA)
    Image.new("I;16", (5000, 1000)).save(path)
    with pytest.raises(ScanError, match=r"5000 × 1000 pixels, expected 2 × 2 to 2048 × 2048; cut out the face"):
        read_depth_image(path, CAMERA)
    header = (
        b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (2**31 - 1).to_bytes(4, "big") * 2 + b"\x10\0\0\0\0"
    )
    path.write_bytes(header + zlib.crc32(header[12:]).to_bytes(4, "big"))
    with pytest.raises(ScanError, match=r"a\.png: "):  # 9 · 10¹⁸ bytes are not taken for granted
        read_depth_image(path, CAMERA)
    data = write_depth(path, to_levels(sphere_depth(CAMERA))).read_bytes()
    for length in (0, 8, 40, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(ScanError, match=r"a\.png: "):
            read_depth_image(path, CAMERA)
    with pytest.raises(ScanError, match="no surface: 0 of"):
        read_depth_image(write_depth(path, np.zeros((9, 9), np.uint16)), CAMERA)


def sphere_grid() -> tuple[np.ndarray, np.ndarray]:
    """Points (R, C, 3) of the sphere over a regular grid, row 0 at the top, and bool (R, C) where it is."""
    x, y = np.meshgrid(np.arange(-70, 71, 2.0), np.arange(66, -67, -2.0))
    with np.errstate(invalid="ignore"):
        z = np.sqrt(RADIUS_MM**2 - x**2 - y**2)
    return np.stack([x, y, z], -1) + CENTRE_MM, np.hypot(x, y) < 55


def encode_abs(points: np.ndarray, is_surface: np.ndarray) -> bytes:
    planes = np.where(is_surface[..., None], points, -999999.0)
    lines = [" ".join(map(str, is_surface.astype(int).ravel()))]
    lines += [" ".join(f"{number:.6f}" for number in planes[..., axis].ravel()) for axis in range(3)]
    rows, columns = is_surface.shape
    return (f"{rows} rows\n{columns} columns\npixels (flag X Y Z):\n" + "\n".join(lines) + "\n").encode()


def test_a_range_image_of_frgc(tmp_path: Path) -> None:
    points, is_surface = sphere_grid()
    data = encode_abs(points, is_surface)
    (tmp_path / "02463d546.abs").write_bytes(data)
    (tmp_path / "packed.ABS.gz").write_bytes(gzip.compress(data))
    Image.new("RGB", (9, 7)).save(tmp_path / "02463d547.ppm")
    mesh = read_surface(tmp_path / "02463d546.abs", texture=tmp_path / "02463d547.ppm")
    packed = read_surface(tmp_path / "packed.ABS.gz")
    assert np.array_equal(mesh.vertices_mm, packed.vertices_mm) and np.array_equal(mesh.triangles, packed.triangles)
    assert mesh.texture is not None and packed.texture is None
    inside = points[is_surface]
    found = mesh.vertices_mm[np.lexsort(mesh.vertices_mm.T[:2])]
    np.testing.assert_allclose(found, inside[np.lexsort(inside.T[:2])], atol=1e-4)
    corners = mesh.vertices_mm[mesh.triangles].astype(float)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()
    whole = is_surface[:-1, :-1].astype(int) + is_surface[1:, :-1] + is_surface[:-1, 1:] + is_surface[1:, 1:]
    assert len(mesh.triangles) == np.maximum(whole - 2, 0).sum()
    assert mesh.uv is not None
    u, v = mesh.uv.reshape(-1, 2).T
    x, y = (corners.reshape(-1, 3) - CENTRE_MM)[:, :2].T
    np.testing.assert_allclose(u, ((x + 70) / 2 + 0.5) / 71, atol=1e-5)
    np.testing.assert_allclose(v, ((y + 66) / 2 + 0.5) / 67, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns", "order"),
    [(71, 67, "C"), (67, 71, "F"), (71, 67, "F"), (66, 72, "C"), (67, 71, "mirrored"), (67, 71, "upside down")],
)
def test_a_grid_in_another_order_is_refused(tmp_path: Path, rows: int, columns: int, order: str) -> None:
    """A sphere of 67 × 71 points, stored by rows or columns, with right, exchanged and other counts, or flipped."""
    points, is_surface = sphere_grid()
    assert is_surface.shape == (67, 71)
    flip = {"mirrored": (slice(None), slice(None, None, -1)), "upside down": (slice(None, None, -1),)}.get(order, ())
    stored = [part[flip] for part in (is_surface, *np.moveaxis(points, -1, 0))]
    flat = [part.ravel("F" if order == "F" else "C") for part in stored]
    mask, *xyz = (np.resize(part, rows * columns).reshape(rows, columns) for part in flat)
    (tmp_path / "a.abs").write_bytes(encode_abs(np.stack(xyz, -1), mask))
    with pytest.raises(ScanError, match=rf"a\.abs: no grid of {rows} rows × {columns} columns: .*write the file again"):
        read_surface(tmp_path / "a.abs")


def test_garbled_range_images_are_refused(tmp_path: Path) -> None:
    data = encode_abs(*(part[::8, ::8] for part in sphere_grid()))
    path, packed = tmp_path / "a.abs", tmp_path / "a.abs.gz"
    for garbled, message in (
        (b"", "empty"),
        (data[:5], "expected `480 rows`"),
        (data[: len(data) // 2], "expected for its 9 × 9 points; the file is cut off"),
        (data.replace(b"9 rows", b"99999 rows", 1), "3599964 expected for its 99999 × 9 points"),
        (data.replace(b"9 rows", b"1 rows", 1), "1 × 9 points"),
        (data.replace(b"-999999", b"-99999x", 1), "expected numbers"),
        (data.replace(b"(flag X Y Z)", b"(X Y Z)"), "expected `480 rows`"),
        (encode_abs(np.zeros((4, 4, 3)), np.zeros((4, 4), bool)), "no surface: 0 of 16"),
        (gzip.compress(data), "gzip"),
    ):
        path.write_bytes(garbled)
        with pytest.raises(ScanError, match=rf"a\.abs: .*{message}"):
            read_surface(path)
    bomb = zlib.compressobj(1, wbits=31)
    for garbled, message in (
        (gzip.compress(data)[:-20], "cut off"),
        (data, "not a gzip file"),
        (b"".join(bomb.compress(bytes(1 << 20)) for _ in range(140)) + bomb.flush(), "unpacks to more than 134 MB"),
    ):
        packed.write_bytes(garbled)
        with pytest.raises(ScanError, match=rf"a\.abs\.gz: .*{message}"):
            read_surface(packed)


def test_depth_images_of_a_folder(tmp_path: Path) -> None:
    folder = DATASETS["folder"]
    levels = to_levels(sphere_depth(CAMERA), 1.0)
    for name in ("S1_happy_001", "S1_happy_002"):
        write_depth(tmp_path / f"{name}_depth.png", levels)
        Image.new("RGB", (COLUMNS, ROWS)).save(tmp_path / f"{name}_colour.png")
    (tmp_path / "camera.json").write_text(json.dumps({"K": [[300, 0, 48.5], [0, 280, 33.25], [0, 0, 1]]}))
    reader = folder.with_option("--pattern", "{subject}_{label}_{frame}_depth.png")
    with pytest.raises(FacetError, match=r"S1_happy_001_depth\.png' is a depth image; fill in its column camera"):
        reader.find(tmp_path)
    in_file = reader.with_option("--columns", "camera=camera.json,max_depth_mm=900")
    in_columns = reader.with_option("--columns", "fx=300,fy=280,cx=48.5,cy=33.25")
    meshes = []
    for one in (in_file, in_columns):
        records = one.find(tmp_path).records
        assert [(record.sample_id, record.frame) for record in records] == [
            ("S1_happy_001_depth", 1),
            ("S1_happy_002_depth", 2),
        ]
        meshes.append(one.read(tmp_path, records[0]))
    assert np.array_equal(meshes[0].vertices_mm, meshes[1].vertices_mm)
    assert np.abs(np.linalg.norm(meshes[0].vertices_mm - CENTRE_MM, axis=1) - RADIUS_MM).max() < 3
    files = in_file.source_files(tmp_path, in_file.find(tmp_path).records[0])
    assert [file.name for file in files] == ["S1_happy_001_depth.png", "camera.json"]
    manifest = tmp_path / "manifest.csv"
    for text, message in (
        ("path,subject,label,camera\na.obj,1,x,c.json\n", "no depth image, and has no camera"),
        ("path,subject,label,fx,fy\na.png,1,x,300,280\n", "the camera's cx, cy is empty"),
        ("path,subject,label,camera,fx\na.png,1,x,c.json,300\n", "both camera and fx"),
        ("path,subject,label,fx,fy,cx,cy\na.png,1,x,300,wide,0,0\n", "fy 'wide', expected a number"),
        ("path,subject,label,camera\na.png,1,x,../c.json\n", "leaves the folder"),
    ):
        manifest.write_text(text)
        with pytest.raises(FacetError, match=f"line 2: .*{message}"):
            folder.find(tmp_path)
