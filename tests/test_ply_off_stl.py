"""PLY, OFF and STL: written by Open3D or by hand, read back; damage and absurd counts are scan errors."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.geometry.mesh import Mesh
from preprocess.readers.surface import find_surface_files, read_surface
from shared.errors import ScanError

PLY = """ply
format {format} 1.0
comment TextureFile skin.png
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 2
property list uchar int vertex_indices
property list uchar float texcoord
end_header
"""
VERTICES = [(0, 0, 0, 255, 0, 0), (10, 0, 0, 0, 255, 0), (10, 10, 0, 0, 0, 255), (0, 10, 5, 7, 8, 9)]
FACES = [([0, 1, 2, 3], [0, 0, 1, 0, 1, 1, 0, 1]), ([0, 1, 3], [0.5, 0.5, 1, 0, 0, 1])]


def ply_bytes(style: str, faces: list = FACES) -> bytes:
    head = PLY.replace("element face 2", f"element face {len(faces)}").format(format=style).encode()
    if style == "ascii":
        rows = [" ".join(map(str, v)) for v in VERTICES]
        rows += [" ".join(map(str, [len(f), *f, len(t), *t])) for f, t in faces]
        return head + "\n".join(rows).encode() + b"\n"
    order = "<" if "little" in style else ">"
    body = b"".join(struct.pack(f"{order}3f3B", *v) for v in VERTICES)
    for f, t in faces:
        body += struct.pack(f"{order}B{len(f)}iB{len(t)}f", len(f), *f, len(t), *t)
    return head + body


@pytest.mark.parametrize("style", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("faces", [FACES, FACES[1:] * 3])
def test_ply_with_polygons_colours_and_texture(tmp_path: Path, style: str, faces: list) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes(style, faces))
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "skin.png")
    mesh = read_surface(path)
    fans = [(f[0], f[i], f[i + 1]) for f, _ in faces for i in range(1, len(f) - 1)]
    uv = [(t[:2], t[2 * i : 2 * i + 2], t[2 * i + 2 : 2 * i + 4]) for f, t in faces for i in range(1, len(f) - 1)]
    np.testing.assert_array_equal(mesh.vertices_mm, [v[:3] for v in VERTICES])
    np.testing.assert_array_equal(mesh.colors, [v[3:] for v in VERTICES])
    np.testing.assert_array_equal(mesh.triangles, fans)
    np.testing.assert_array_equal(mesh.uv, np.array(uv, np.float32))
    assert mesh.texture is not None
    assert [p.name for p in find_surface_files(path)] == ["a.ply", "skin.png"]


def test_faces_that_no_header_counts_are_named(tmp_path: Path) -> None:
    off = tmp_path / "a.off"
    off.write_text("OFF\n3 1 0\n0 0 0\n9 0 0\n0 9 0\n3 0 1 2\n3 0 2 1\n")
    ply = tmp_path / "a.ply"
    ply.write_bytes(ply_bytes("ascii").replace(b"face 2", b"face 1"))
    for path in (off, ply):
        assert any("more follows its last face" in note for note in read_surface(path).notes)


def test_ply_properties_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes("ascii").replace(b"uchar red", b"uchar Red").replace(b"float x", b"float X"))
    np.testing.assert_array_equal(read_surface(path).colors, [v[3:] for v in VERTICES])


def sphere() -> tuple[np.ndarray, np.ndarray]:
    import open3d

    mesh = open3d.geometry.TriangleMesh.create_sphere(50, 8)
    return np.asarray(mesh.vertices), np.asarray(mesh.triangles)


@pytest.mark.parametrize("name", ["a.ply", "ascii.ply", "a.off", "a.stl"])
def test_what_open3d_writes_reads_back(tmp_path: Path, name: str) -> None:
    import open3d

    vertices, triangles = sphere()
    written = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(vertices), open3d.utility.Vector3iVector(triangles)
    )
    if name != "a.stl":
        written.vertex_colors = open3d.utility.Vector3dVector(np.tile([1, 0.5, 0], (len(vertices), 1)))
    else:
        written.compute_triangle_normals()
    open3d.io.write_triangle_mesh(str(tmp_path / name), written, write_ascii=name == "ascii.ply")  # type: ignore[arg-type]
    mesh = read_surface(tmp_path / name)
    assert len(mesh.vertices_mm) == len(vertices)  # an STL's corners are joined again
    np.testing.assert_allclose(mesh.vertices_mm[mesh.triangles], vertices[triangles], atol=1e-3)
    if name != "a.stl":
        assert mesh.colors is not None
        assert (mesh.colors == [255, 128, 0]).all() or (mesh.colors == [255, 127, 0]).all()


def test_off_with_quads_comments_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.off"
    path.write_text(
        "COFF # colours\n\n4 2 0\n0 0 0 255 0 0 255\n1 0 0 0 255 0 255\n# between\n1 1 0 0 0 255 255\n0 1 0 9 9 9 255\n"
        "4 0 1 2 3 200 10 10\n3 0 1 3\n"
    )
    mesh = read_surface(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 3]]
    assert mesh.colors is not None
    assert mesh.colors[3].tolist() == [9, 9, 9]


def test_ascii_stl(tmp_path: Path) -> None:
    path = tmp_path / "a.stl"
    facet = "facet normal 0 0 1\nouter loop\nvertex {}\nvertex {}\nvertex {}\nendloop\nendfacet\n"
    body = facet.format("0 0 0", "1 0 0", "0 1 0") + facet.format("1 0 0", "1 1 0", "0 1 0")
    path.write_text(f"solid face\n{body}endsolid face\n")
    mesh = read_surface(path)
    assert (len(mesh.vertices_mm), len(mesh.triangles)) == (4, 2)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.ply", ply_bytes("ascii").replace(b"vertex 4", b"vertex 1000000000"), "more than the file holds"),
        ("a.ply", ply_bytes("binary_little_endian").replace(b"face 2", b"face 1000000000"), "more than the file holds"),
        ("a.ply", ply_bytes("ascii").replace(b"face 2", b"face -2"), "header line"),
        ("a.ply", ply_bytes("ascii").replace(b"property float x", b"property real x"), "header line"),
        ("a.ply", ply_bytes("ascii").replace(b"4 0 1 2 3", b"4 0 1 2 4"), "outside 0…3"),
        ("a.ply", ply_bytes("ascii").replace(b"4 0 1 2 3", b"999 0 1 2 4"), "999 entries"),
        ("a.ply", ply_bytes("ascii", [])[:-1] + b"\n", "no faces"),
        ("a.ply", ply_bytes("ascii").replace(b"10 10 0", b"nan 10 0"), "not finite"),
        ("a.off", b"OFF\n1000000000 1 0\n0 0 0\n", "promises 1000000000"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "vertex 7, there are 3"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0\n0 1 0\n3 0 1 2\n", "expected 3 numbers per line, found 2"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n9 0 1 2\n", "9 corners"),
        ("a.stl", b"\0" * 80 + struct.pack("<I", 10**9) + b"\0" * 50 + b"x", "promises 1000000000 triangles"),
        ("a.stl", b"solid nothing\nendsolid\n", "0 facets"),
        ("a.xyz", b"0 0 0\n", "unknown ending"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ScanError, match=message) as error:
        read_surface(tmp_path / name)
    assert name in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


@given(data=st.data(), kind=st.sampled_from(["ascii.ply", "binary.ply", "a.off", "a.stl"]))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_a_mesh_or_a_scan_error(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    content = {
        "ascii.ply": ply_bytes("ascii"),
        "binary.ply": ply_bytes("binary_little_endian"),
        "a.off": b"COFF\n3 1 0\n0 0 0 1 1 1 1\n1 0 0 1 1 1 1\n0 1 0 1 1 1 1\n3 0 1 2\n",
        "a.stl": b"\0" * 80 + struct.pack("<I12fH", 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0),
    }[kind]
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / kind
    path.write_bytes(damaged)
    message = kind
    try:
        assert isinstance(read_surface(path), Mesh)
    except ScanError as error:
        message = str(error)
    assert kind in message
