"""GLB: the container, scenes of several nodes, embedded pictures; damage and absurd counts are scan errors."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from written_glb import INDICES, POSITIONS, UV, encode_glb

from preprocess.readers.surface import read_surface
from shared.errors import ScanError


def document(nodes: list[dict] | None = None, scene: list[int] | None = None) -> tuple[dict[str, Any], bytes]:
    parts = [POSITIONS.tobytes(), UV.tobytes(), INDICES.tobytes()]
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    nodes = nodes or [{"mesh": 0}]
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": scene if scene is not None else list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [1, 2, 3]},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": s, "byteLength": len(p)} for s, p in zip(starts, parts, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }, b"".join(parts)


def corners(path: Path) -> list:
    mesh = read_surface(path)
    return sorted(mesh.vertices_mm[mesh.triangles].reshape(-1, 9).round(3).tolist())


def test_nodes_stand_where_their_transforms_put_them(tmp_path: Path) -> None:
    quarter = [0, 0, 0.5**0.5, 0.5**0.5]  # 90 degrees about z
    nodes: list[dict] = [
        {"mesh": 0, "translation": [10, 0, 0]},
        {"scale": [2, 2, 2], "children": [2]},
        {"mesh": 0, "translation": [0, 100, 0], "rotation": quarter},
        {"mesh": 0, "translation": [999, 0, 0]},  # in no scene
        {"camera": 0},
    ]
    content, binary = document(nodes, scene=[0, 1, 4])
    content["cameras"] = [{"type": "perspective", "perspective": {"yfov": 1, "znear": 1}}]
    (tmp_path / "a.glb").write_bytes(encode_glb(content, binary))
    base = POSITIONS[INDICES.reshape(-1, 3)].astype(float)
    turned = np.stack([-base[..., 1], base[..., 0], base[..., 2]], axis=-1)
    expected = np.concatenate([base + np.array([10, 0, 0]), 2 * (turned + np.array([0, 100, 0]))]).reshape(-1, 9)
    np.testing.assert_allclose(corners(tmp_path / "a.glb"), sorted(expected.tolist()), atol=1e-3)


def test_v_points_up(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(encode_glb(*document()))
    mesh = read_surface(tmp_path / "a.glb")
    assert mesh.uv is not None
    place = {tuple(v): uv for v, uv in zip(POSITIONS.tolist(), UV.tolist(), strict=True)}
    for corner, uv in zip(mesh.vertices_mm[mesh.triangles].reshape(-1, 3), mesh.uv.reshape(-1, 2), strict=True):
        u, v = place[tuple(corner.tolist())]
        np.testing.assert_allclose(uv, [u, 1 - v])


def painted(*, embedded: bool = True) -> tuple[dict[str, Any], bytes]:
    content, binary = document()
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(buffer, "PNG")
    png = buffer.getvalue()
    if embedded:
        content["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(png)})
        content["buffers"][0]["byteLength"] += len(png)
        content["images"] = [{"bufferView": 3, "mimeType": "image/png"}]
    else:
        content["images"] = [{"uri": "data:image/png;base64," + base64.b64encode(png).decode()}]
    content["textures"] = [{"source": 0}]
    content["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    content["meshes"][0]["primitives"][0]["material"] = 0
    return content, binary + png


@pytest.mark.parametrize("embedded", [True, False])
def test_the_embedded_picture_is_the_texture(tmp_path: Path, embedded: bool) -> None:
    (tmp_path / "a.glb").write_bytes(encode_glb(*painted(embedded=embedded)))
    texture = read_surface(tmp_path / "a.glb").texture
    assert texture is not None
    assert texture.shape == (2, 3, 3)
    assert texture[0, 0].tolist() == [1, 2, 3]


def test_a_picture_elsewhere_is_not_followed(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "skin.png")
    content, binary = painted()
    content["images"] = [{"uri": str(tmp_path / "skin.png")}]
    (tmp_path / "a.glb").write_bytes(encode_glb(content, binary))
    assert read_surface(tmp_path / "a.glb").texture is None


def test_numbers_written_into_the_json_part(tmp_path: Path) -> None:
    content, binary = document()
    (tmp_path / "a.glb").write_bytes(encode_glb(content, binary))
    content["buffers"] = [{"byteLength": len(binary), "uri": "data:x;base64," + base64.b64encode(binary).decode()}]
    (tmp_path / "b.glb").write_bytes(encode_glb(content, b""))
    assert corners(tmp_path / "a.glb") == corners(tmp_path / "b.glb")


def change(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        content = content[part]  # type: ignore[index]
    content[last] = value  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("accessors.0.count", 10**9, "accessor of 1000000000"),
        ("bufferViews.0.byteLength", 10**9, "its buffer has"),
        ("bufferViews.0.byteOffset", -4, "from -4"),
        ("buffers.0.uri", "/etc/passwd", "another file"),
        ("buffers.0.uri", "data:x;base64,???", "garble"),
        ("extensionsRequired", ["KHR_draco_mesh_compression"], "uncompressed"),
        ("accessors.0.componentType", 1, "garble"),
        ("nodes.0.children", [0], "not a tree"),
        ("nodes", 3, "garble"),
        ("meshes.0.primitives.0.attributes", {}, "no triangles"),
        ("meshes.0.primitives.0.attributes.POSITION", 2, "POSITION of 1"),
        ("meshes.0.primitives.0.indices", 0, "no whole numbers"),
        ("meshes.0.primitives.0.indices", 77, "names accessors 77"),
        ("meshes.0.primitives", [{"attributes": {"POSITION": 0}}] * 10_001, "10000 parts"),
        ("nodes", [{}] * 20_001, "20001 nodes"),
        ("accessors.0", {"componentType": 5126, "count": 10**9, "type": "VEC3"}, "20000000 vertices"),
        ("accessors.0.sparse", {"count": 9, "indices": {}, "values": {}}, "9 sparse values"),
        ("nodes.0.scale", [1e39] * 3, "finite"),
        ("nodes.0.rotation", [0, 0, "x", 1], "garble"),
        ("scenes.0.nodes", [5], "names nodes 5"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, path: str, value: Any, message: str) -> None:
    content, binary = document()
    change(content, path, value)
    (tmp_path / "a.glb").write_bytes(encode_glb(content, binary))
    with pytest.raises(ScanError, match=message) as error:
        read_surface(tmp_path / "a.glb")
    assert "a.glb" in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.glb", b"glTF" + (1).to_bytes(4, "little") + bytes(40), "version 1"),
        ("a.glb", b'{"asset": {"version": "2.0"}}', "JSON"),
        ("a.gltf", b'{"asset": {"version": "2.0"}}', "self-contained GLB"),
        ("a.glb", b"ply\nformat ascii 1.0\n", "GLB"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ScanError, match=message):
        read_surface(tmp_path / name)


@given(data=st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_a_mesh_or_a_scan_error(tmp_path: Path, data: st.DataObject) -> None:
    content = encode_glb(*painted())
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.glb").write_bytes(damaged)
    message = "a.glb"
    try:
        read_surface(tmp_path / "a.glb")
    except ScanError as error:
        message = str(error)
    assert "a.glb" in message


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, binary = document()
    content["accessors"][2]["componentType"] = 5126  # indices that are no integers
    content["accessors"][2]["count"] = 3
    (tmp_path / "a.glb").write_bytes(encode_glb(content, binary))
    with pytest.raises(ScanError):
        read_surface(tmp_path / "a.glb")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif("FACET_FACES" not in os.environ, reason="FACET_FACES names the folder of real scans")
def test_real_scan() -> None:
    mesh = read_surface(Path(os.environ["FACET_FACES"]) / "leeperrysmith" / "LeePerrySmith.glb")
    assert len(mesh.triangles) == 17684
    assert mesh.uv is not None
    assert 4.2 < mesh.vertices_mm[:, 0].max() < 4.3
