"""What a GLB says is what is read: numbers, shapes, places and colours, against values worked out by hand and trimesh."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from written_glb import INDICES, POSITIONS, UV, WrittenGlb, encode_glb

from preprocess.geometry.mesh import Mesh
from preprocess.readers.surface import read_surface
from shared.errors import ScanError

CORNERS = POSITIONS[INDICES.reshape(-1, 3)]


def read(glb: WrittenGlb, folder: Path) -> Mesh:
    return read_surface(glb.write(folder))


def corners(mesh: Mesh) -> np.ndarray:
    return mesh.vertices_mm[mesh.triangles]


def linear_to_srgb(value: float) -> int:
    return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("layout", [(0, 0), (12, 0), (16, 4), (9, 1)])
def test_integers_are_numbers_or_fractions(
    tmp_path: Path, dtype: str, normalized: bool, layout: tuple[int, int]
) -> None:
    limits = np.iinfo(dtype)
    stored = np.array([[0, 1, 2], [limits.max, 0, 3], [5, limits.max, 0], [limits.min, 7, 100]], "<" + dtype)
    glb = WrittenGlb()
    position = glb.accessor(stored, stride=layout[0], offset=layout[1], normalized=normalized)
    glb.primitive(POSITION=position, indices=glb.accessor(INDICES))
    expected = np.maximum(stored / limits.max, -1) if normalized else stored.astype(float)
    np.testing.assert_allclose(corners(read(glb, tmp_path)), expected[INDICES.reshape(-1, 3)], rtol=1e-6)


def test_a_json_part_filled_up_with_zeros(tmp_path: Path) -> None:
    glb = WrittenGlb()
    glb.primitive()
    path = glb.write(tmp_path)
    data = path.read_bytes()
    end = 20 + int.from_bytes(data[12:16], "little")
    head = data[:end].rstrip(b" ")
    path.write_bytes(head + b"\0" * (end - len(head)) + data[end:])
    np.testing.assert_array_equal(corners(read_surface(path)), CORNERS)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_indices_of_every_width_and_none(tmp_path: Path, dtype: str) -> None:
    glb = WrittenGlb()
    glb.primitive(POSITION=glb.accessor(POSITIONS), indices=glb.accessor(INDICES.astype("<" + dtype)))
    flat = WrittenGlb()
    flat.primitive(POSITION=flat.accessor(POSITIONS[INDICES]))
    for written in (glb, flat):
        np.testing.assert_array_equal(corners(read(written, tmp_path)), CORNERS)


def test_sparse_values(tmp_path: Path) -> None:
    glb = WrittenGlb()
    base = glb.accessor(POSITIONS)
    glb.primitive(
        POSITION=glb.sparse(4, [1, 3], np.array([[5, 0, 0], [0, 0, 9]], "<f4"), base=base),
        indices=glb.accessor(INDICES),
    )
    zeros = WrittenGlb()
    zeros.primitive(POSITION=zeros.sparse(4, [1, 2, 3], POSITIONS[1:]), indices=zeros.accessor(INDICES))
    changed = POSITIONS.copy()
    changed[[1, 3]] = [[5, 0, 0], [0, 0, 9]]
    np.testing.assert_array_equal(corners(read(glb, tmp_path)), changed[INDICES.reshape(-1, 3)])
    np.testing.assert_array_equal(corners(read(zeros, tmp_path)), CORNERS)


@pytest.mark.parametrize(
    ("mesh_weights", "node_weights", "expected"),
    [(None, None, (0, 0)), ([1, 0], None, (1, 0)), ([1, 0.5], [0, 0.25], (0, 0.25)), ([-0.5, 2], None, (-0.5, 2))],
)
def test_morph_targets_by_their_weights(
    tmp_path: Path, mesh_weights: list | None, node_weights: list | None, expected: tuple[float, float]
) -> None:
    up, out = np.array([[0, 1, 0]] * 4, "<f4"), np.array([[0, 0, 1], [0, 0, -2]], "<f4")
    glb = WrittenGlb()
    primitive = glb.primitive()
    primitive["targets"] = [
        {"POSITION": glb.accessor(up), "TEXCOORD_0": glb.accessor(np.full((4, 2), 0.125, "<f4"))},
        {"POSITION": glb.sparse(4, [0, 2], out)},
    ]
    if mesh_weights is not None:
        glb.document["meshes"][0]["weights"] = mesh_weights
    if node_weights is not None:
        glb.document["nodes"][0]["weights"] = node_weights
    mesh = read(glb, tmp_path)
    moved = POSITIONS + expected[0] * up
    moved[[0, 2]] += np.float32(expected[1]) * out
    np.testing.assert_allclose(corners(mesh), moved[INDICES.reshape(-1, 3)])
    assert mesh.uv is not None
    np.testing.assert_allclose(1 - mesh.uv[..., 1], (UV[..., 1] + expected[0] / 8)[INDICES.reshape(-1, 3)])


@pytest.mark.parametrize(
    ("mode", "order", "expected"),
    [
        (5, [0, 1, 2, 3], [[0, 1, 2], [1, 3, 2]]),  # a strip: every second triangle is turned
        (6, [0, 1, 2, 3], [[1, 2, 0], [2, 3, 0]]),
        (4, [0, 1, 2, 0, 1, 3, 2], [[0, 1, 2], [0, 1, 3]]),  # one corner is left over
    ],
)
def test_strips_and_fans(tmp_path: Path, mode: int, order: list[int], expected: list) -> None:
    glb = WrittenGlb()
    glb.primitive(POSITION=glb.accessor(POSITIONS), indices=glb.accessor(np.array(order, "<u1")))["mode"] = mode
    np.testing.assert_array_equal(corners(read(glb, tmp_path)), POSITIONS[expected])


def test_a_mirrored_node_still_shows_its_outside(tmp_path: Path) -> None:
    glb = WrittenGlb()
    glb.primitive()
    glb.document["nodes"][0]["scale"] = [-1, 1, 1]
    found = corners(read(glb, tmp_path))
    normal, original = (np.cross(c[0, 1] - c[0, 0], c[0, 2] - c[0, 0]) for c in (found, CORNERS))
    np.testing.assert_array_equal(normal, original)  # +z: mirrored in x, it still faces +z
    assert found[..., 0].min() == -1


def test_the_default_scene(tmp_path: Path) -> None:
    glb = WrittenGlb()
    glb.primitive()
    glb.document["nodes"].append({"mesh": 0, "translation": [50, 0, 0]})
    glb.document["scenes"].append({"nodes": [1]})
    glb.document["scene"] = 1
    mesh = read(glb, tmp_path)
    np.testing.assert_array_equal(corners(mesh), CORNERS + np.array([50, 0, 0], "<f4"))
    assert not mesh.notes
    del glb.document["scene"]
    mesh = read(glb, tmp_path)
    np.testing.assert_array_equal(corners(mesh), CORNERS)
    assert "2 scenes" in mesh.notes[0]


def test_a_skin_stands_where_its_joints_are(tmp_path: Path) -> None:
    glb = WrittenGlb()
    primitive = glb.primitive()
    joints = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], "<u1")
    weights = np.array([[255, 0, 0, 0], [255, 0, 0, 0], [51, 204, 0, 0], [255, 0, 0, 0]], "<u1")
    primitive["attributes"] |= {"JOINTS_0": glb.accessor(joints), "WEIGHTS_0": glb.accessor(weights, normalized=True)}
    bind = np.tile(np.eye(4, dtype="<f4"), (2, 1, 1))
    bind[1, :3, 3] = [0, -1, 0]  # the second joint stood one up when it was bound
    inverse = glb.accessor(np.ascontiguousarray(bind.transpose(0, 2, 1)).reshape(2, 16))
    glb.document["skins"] = [{"joints": [1, 2], "inverseBindMatrices": inverse}]
    glb.document["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [99, 99, 99]},  # does not count
        {"translation": [10, 0, 0], "children": [2]},
        {"translation": [0, 1, 0], "scale": [2, 2, 2]},
    ]
    glb.document["scenes"] = [{"nodes": [0, 1]}]
    first = POSITIONS + np.array([10, 0, 0], "<f4")
    second = 2 * (POSITIONS - np.array([0, 1, 0], "<f4")) + np.array([10, 1, 0], "<f4")
    expected = np.stack([first[0], second[1], 0.2 * first[2] + 0.8 * second[2], first[3]])
    np.testing.assert_allclose(corners(read(glb, tmp_path)), expected[INDICES.reshape(-1, 3)], rtol=1e-5)


def place_plain(info: dict[str, Any]) -> np.ndarray:
    return UV


def place_scaled(info: dict[str, Any]) -> np.ndarray:
    info["extensions"] = {"KHR_texture_transform": {"offset": [0.5, -1], "scale": [2, 4]}}
    return UV * [2, 4] + [0.5, -1]


def place_turned(info: dict[str, Any]) -> np.ndarray:
    """Counter-clockwise where v points up: in glTF, where it points down, (u, v) goes to (v, -u)."""
    info["extensions"] = {"KHR_texture_transform": {"rotation": np.pi / 2, "scale": [1, 2], "offset": [0, 1]}}
    return np.stack([2 * UV[:, 1], 1 - UV[:, 0]], axis=1)


def place_second(info: dict[str, Any]) -> np.ndarray:
    info["texCoord"] = 1
    return UV[::-1]


def place_overridden(info: dict[str, Any]) -> np.ndarray:
    info["extensions"] = {"KHR_texture_transform": {"texCoord": 1, "scale": [0.5, 0.5]}}
    return UV[::-1] / 2


@pytest.mark.parametrize("place", [place_plain, place_scaled, place_turned, place_second, place_overridden])
@pytest.mark.parametrize("glossy", [False, True])
def test_where_the_texture_lies(tmp_path: Path, place: Callable[[dict], np.ndarray], glossy: bool) -> None:
    glb = WrittenGlb()
    primitive = glb.primitive()
    primitive["attributes"]["TEXCOORD_1"] = glb.accessor(UV[::-1])
    base = glb.paint(primitive, glb.texture())
    expected = place(base["baseColorTexture"])
    if glossy:
        specular = {"diffuseTexture": base.pop("baseColorTexture")}
        glb.document["materials"][0]["extensions"] = {"KHR_materials_pbrSpecularGlossiness": specular}
    mesh = read(glb, tmp_path)
    assert mesh.uv is not None and mesh.texture is not None and not mesh.notes
    upwards = np.stack([expected[:, 0], 1 - expected[:, 1]], axis=1)
    np.testing.assert_allclose(mesh.uv, upwards[INDICES.reshape(-1, 3)], atol=1e-6)
    assert mesh.texture[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("width", [3, 4])
def test_vertex_colours_are_linear(tmp_path: Path, dtype: str, width: int) -> None:
    scale = 1 if dtype == "f4" else np.iinfo(dtype).max
    levels = np.array([[1, 0.5, 0, 0.3], [0.2, 0.001, 1, 0.3], [0.1, 0.2, 0.3, 0.3], [0.05, 0.6, 0.7, 0.3]])
    stored = (levels * scale).astype("<" + dtype)
    glb = WrittenGlb()
    color = glb.accessor(np.ascontiguousarray(stored[:, :width]), normalized=dtype != "f4")
    glb.primitive(POSITION=glb.accessor(POSITIONS), COLOR_0=color, indices=glb.accessor(INDICES))
    mesh = read(glb, tmp_path)
    place = {tuple(p): c for p, c in zip(POSITIONS.tolist(), stored[:, :3] / scale, strict=True)}
    assert mesh.colors is not None
    for vertex, found in zip(mesh.vertices_mm.tolist(), mesh.colors.tolist(), strict=True):
        assert found == pytest.approx([linear_to_srgb(value) for value in place[tuple(vertex)]], abs=1)


def test_the_material_tints_the_vertex_colours_and_the_texture(tmp_path: Path) -> None:
    glb = WrittenGlb()
    colored = glb.primitive()
    colored["attributes"]["COLOR_0"] = glb.accessor(np.linspace(0, 1, 12, dtype="<f4").reshape(4, 3))
    glb.paint(colored)["baseColorFactor"] = [0.5, 1, 0.25, 1]
    mesh = read(glb, tmp_path)
    assert mesh.colors is not None
    brightest = mesh.colors[mesh.vertices_mm[:, 2] == 3][0]
    assert brightest.tolist() == [linear_to_srgb(v) for v in (0.5 * 9 / 11, 10 / 11, 0.25)]

    glb = WrittenGlb()
    painted = glb.primitive()
    painted["attributes"]["COLOR_0"] = glb.accessor(np.full((4, 3), 0.5, "<f4"))  # one colour: as the material's
    glb.paint(painted, glb.texture(np.full((2, 2, 3), 255, np.uint8)))["baseColorFactor"] = [1, 0.5, 0.25, 1]
    mesh = read(glb, tmp_path)
    assert mesh.texture is not None and not mesh.notes
    assert mesh.texture[0, 0].tolist() == [linear_to_srgb(v) for v in (0.5, 0.25, 0.125)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("required", [True, False])
def test_parts_without_texture_keep_their_colour(tmp_path: Path, kind: str, required: bool) -> None:
    glb = WrittenGlb()
    texture = glb.texture(kind=kind)
    if kind == "WEBP":
        source = glb.document["textures"][0].pop("source")
        glb.document["textures"][0]["extensions"] = {"EXT_texture_webp": {"source": source}}
        glb.document["extensionsUsed"] = ["EXT_texture_webp"]
        glb.document["extensionsRequired"] = ["EXT_texture_webp"] * required
    glb.paint(glb.primitive(), texture)
    eye = glb.primitive(POSITION=glb.accessor(POSITIONS + np.array([0, 0, 50], "<f4")), indices=glb.accessor(INDICES))
    glb.paint(eye)["baseColorFactor"] = [0.2, 0.1, 0.05, 1]
    hair = glb.primitive()  # has texture coordinates, but its material no texture
    glb.paint(hair)["baseColorFactor"] = [0, 0, 0, 1]
    mesh = read(glb, tmp_path)
    assert mesh.texture is not None and mesh.uv is not None and mesh.colors is not None and not mesh.notes
    assert np.isfinite(mesh.uv[:2]).all()
    assert np.isnan(mesh.uv[2:]).all()
    assert (mesh.colors[mesh.triangles[2:4]] == [linear_to_srgb(v) for v in (0.2, 0.1, 0.05)]).all()
    assert (mesh.colors[mesh.triangles[4:]] == 0).all()


def test_one_colour_of_all_is_no_appearance(tmp_path: Path) -> None:
    glb = WrittenGlb()
    glb.paint(glb.primitive())["baseColorFactor"] = [0.6, 0.6, 0.8, 1]
    mesh = read(glb, tmp_path)
    assert not mesh.has_appearance
    other = glb.primitive(POSITION=glb.accessor(POSITIONS + np.float32(5)))
    glb.paint(other)["baseColorFactor"] = [1, 1, 1, 1]
    assert read(glb, tmp_path).has_appearance


def test_another_image_takes_the_place_of_the_files(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "skin.png")
    glb = WrittenGlb()
    glb.paint(glb.primitive(), glb.texture())["baseColorFactor"] = [0.5, 0.5, 0.5, 1]
    glb.document["images"] = [{"uri": "elsewhere.png"}]
    glb.paint(glb.primitive())
    mesh = read_surface(glb.write(tmp_path), texture=tmp_path / "skin.png")
    assert mesh.texture is not None and mesh.uv is not None and not mesh.notes
    assert mesh.texture[0, 0].tolist() == [9, 8, 7]
    assert np.isfinite(mesh.uv[:2]).all() and np.isnan(mesh.uv[2:]).all()


def painted(glb: WrittenGlb) -> dict[str, Any]:
    primitive = glb.primitive()
    glb.paint(primitive, glb.texture())
    return primitive


def ask_animation(glb: WrittenGlb) -> None:
    glb.document["animations"] = [
        {"channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}], "samplers": []}
    ]


def ask_unknown(glb: WrittenGlb) -> None:
    glb.document["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]


def ask_points(glb: WrittenGlb) -> None:
    glb.primitive(POSITION=glb.accessor(POSITIONS))["mode"] = 0


def ask_image_elsewhere(glb: WrittenGlb) -> None:
    glb.document["images"][0] = {"uri": "skin.png"}


def ask_basis(glb: WrittenGlb) -> None:
    glb.document["textures"][0] = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
    glb.document["extensionsUsed"] = ["KHR_texture_basisu"]


def ask_no_coordinates(glb: WrittenGlb) -> None:
    glb.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 3


def ask_colours_on_texture(glb: WrittenGlb) -> None:
    colors = np.linspace(0, 1, 12, dtype="<f4").reshape(4, 3)
    glb.document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"] = glb.accessor(colors)


def ask_two_tints(glb: WrittenGlb) -> None:
    glb.paint(glb.primitive(), 0)["baseColorFactor"] = [0.5, 0.5, 0.5, 1]


def ask_clamped(glb: WrittenGlb) -> None:
    glb.document["samplers"] = [{"wrapS": 33071, "wrapT": 10497}]
    glb.document["textures"][0]["sampler"] = 0
    info = glb.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    info["extensions"] = {"KHR_texture_transform": {"scale": [2, 1]}}


def ask_mirrored(glb: WrittenGlb) -> None:
    ask_clamped(glb)
    glb.document["samplers"][0]["wrapS"] = 33648


def ask_transparent(glb: WrittenGlb) -> None:
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[0, 0, 3] = 100
    glb.document["textures"][0] = glb.document["textures"][glb.texture(pixels)]
    glb.document["materials"][0]["alphaMode"] = "BLEND"


def ask_glass(glb: WrittenGlb) -> None:
    glb.paint(glb.primitive(), alphaMode="BLEND")["baseColorFactor"] = [1, 1, 1, 0.1]


def ask_transmission(glb: WrittenGlb) -> None:
    glb.document["materials"][0]["extensions"] = {"KHR_materials_transmission": {"transmissionFactor": 1}}


def ask_emission(glb: WrittenGlb) -> None:
    glb.document["materials"][0]["emissiveFactor"] = [1, 1, 1]


ASKED = (
    ask_animation, ask_unknown, ask_points, ask_image_elsewhere, ask_basis, ask_no_coordinates, ask_colours_on_texture,
    ask_two_tints, ask_clamped, ask_mirrored, ask_transparent, ask_glass, ask_transmission, ask_emission,
)  # fmt: skip


@pytest.mark.parametrize("ask", ASKED, ids=lambda ask: ask.__name__)
def test_what_is_not_done_is_said(tmp_path: Path, ask: Callable[[WrittenGlb], None]) -> None:
    glb = WrittenGlb()
    painted(glb)
    assert not read(glb, tmp_path).notes
    ask(glb)
    mesh = read(glb, tmp_path)
    assert len(mesh.notes) == 1
    assert "\n" not in mesh.notes[0]
    drawn = ask not in (ask_image_elsewhere, ask_basis, ask_no_coordinates)
    assert (mesh.texture is not None) == drawn


def ask_nothing_special(glb: WrittenGlb) -> None:
    """What changes nothing about a picture without light, or says twice what is read."""
    material = glb.document["materials"][0]
    material |= {"doubleSided": True, "alphaMode": "MASK", "normalTexture": {"index": 0}}
    material["extensions"] = {"KHR_materials_unlit": {}, "KHR_materials_clearcoat": {"clearcoatFactor": 1}}
    glb.document["textures"][0]["extensions"] = {"KHR_texture_basisu": {"source": 0}}
    used = ["KHR_materials_clearcoat", "KHR_lights_punctual", "KHR_texture_basisu", "KHR_draco_mesh_compression"]
    glb.document["extensionsUsed"] = used
    glb.document["extensionsRequired"] = ["KHR_materials_unlit"]
    glb.document["nodes"][0]["weights"] = [1, 1, 1]  # of no targets


def test_what_changes_nothing_is_not_mentioned(tmp_path: Path) -> None:
    glb = WrittenGlb()
    painted(glb)
    ask_nothing_special(glb)
    mesh = read(glb, tmp_path)
    assert not mesh.notes and mesh.texture is not None


def test_one_image_written_twice_is_one_and_two_are_refused(tmp_path: Path) -> None:
    glb = WrittenGlb()
    painted(glb)
    painted(glb)
    assert read(glb, tmp_path).texture is not None
    glb.paint(glb.primitive(), glb.texture(np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(ScanError, match="several textures"):
        read(glb, tmp_path)


def test_emission_on_black_is_the_picture(tmp_path: Path) -> None:
    glb = WrittenGlb()
    base = glb.paint(glb.primitive(), emissiveFactor=[1, 1, 1], emissiveTexture={"index": glb.texture()})
    base["baseColorFactor"] = [0, 0, 0, 1]
    mesh = read(glb, tmp_path)
    assert mesh.texture is not None and mesh.texture[0, 0].tolist() == [200, 100, 50] and not mesh.notes


@pytest.mark.parametrize("name", ["EXT_mesh_gpu_instancing", "KHR_texture_basisu", "EXT_meshopt_compression", "X_any"])
def test_what_a_file_cannot_do_without_is_refused_by_name(tmp_path: Path, name: str) -> None:
    glb = WrittenGlb()
    painted(glb)
    glb.document["extensionsRequired"] = [name]
    with pytest.raises(ScanError, match=name):
        read(glb, tmp_path)


def test_compression_that_is_not_declared_is_refused_by_name(tmp_path: Path) -> None:
    glb = WrittenGlb()
    primitive = painted(glb)
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    position = glb.document["accessors"][primitive["attributes"]["POSITION"]]
    view = position.pop("bufferView")
    with pytest.raises(ScanError, match="KHR_draco_mesh_compression"):
        read(glb, tmp_path)
    del primitive["extensions"]
    position["bufferView"] = view
    glb.document["bufferViews"][view] |= {"buffer": 1, "extensions": {"EXT_meshopt_compression": {"buffer": 0}}}
    path = glb.write(tmp_path)
    glb.document["buffers"].append({"byteLength": 99, "extensions": {"EXT_meshopt_compression": {"fallback": True}}})
    path.write_bytes(encode_glb(glb.document, glb.binary))
    with pytest.raises(ScanError, match="EXT_meshopt_compression"):
        read_surface(path)


def test_a_scene_that_trimesh_writes(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    rng = np.random.default_rng(0)
    for k in range(3):
        part = trimesh.creation.icosphere(subdivisions=2, radius=10 + k)
        place = trimesh.transformations.random_rotation_matrix(rng.random(3))
        place[:3, 3] = rng.normal(size=3) * 30
        place[:3, :3] *= 1 + k
        scene.add_geometry(
            part, transform=place, parent_node_name="world" if k != 2 else "inner1", node_name=f"inner{k}"
        )
    path = tmp_path / "scene.glb"
    scene.export(path)
    expected = trimesh.load_scene(path).to_mesh().triangles  # as trimesh reads it itself
    found = corners(read_surface(path))
    order = [np.lexsort(np.round(t.reshape(len(t), 9), 2).T) for t in (found, expected)]
    np.testing.assert_allclose(found[order[0]].mean(1), expected[order[1]].mean(1), atol=1e-3)


@pytest.mark.skipif("FACET_CASES" not in os.environ, reason="FACET_CASES names the folder of small inputs")
def test_cases() -> None:
    def case(name: str) -> Mesh:
        return read_surface(Path(os.environ["FACET_CASES"]) / "scans" / name)

    plain = case("07-glb-texture-transform/in/plain.glb")
    assert plain.uv is not None
    same = ["07-glb-texture-transform/in/transform.glb", "10-glb-webp-texture/in/used.glb"]
    same += [f"08-glb-quantised/in/{name}.glb" for name in ("pos16norm", "quantised", "uv16")]
    for name in same:
        mesh = case(name)
        assert mesh.uv is not None and mesh.texture is not None and not mesh.notes
        np.testing.assert_allclose(corners(mesh), corners(plain), atol=1e-5)
        np.testing.assert_allclose(mesh.uv, plain.uv, atol=1.3e-4)
    smile, baked = (case(f"32-glb-morph-weights/in/smile_{name}.glb") for name in ("by_weight", "baked"))
    np.testing.assert_allclose(corners(smile), corners(baked), atol=1e-7)
    glb, ply = (case(f"06-glb-linear-colours/in/face.{suffix}") for suffix in ("glb", "ply"))
    assert glb.colors is not None and ply.colors is not None
    assert np.abs(glb.colors[glb.triangles].astype(int) - ply.colors[ply.triangles]).max() <= 1
    eyes = case("09-glb-part-without-uv/in/face.glb")
    assert eyes.uv is not None and eyes.colors is not None and eyes.texture is not None
    untextured = np.isnan(eyes.uv).all((1, 2))
    assert 0 < untextured.sum() < 100
    assert (eyes.colors[eyes.triangles[untextured]] == [linear_to_srgb(v) for v in (0.2, 0.1, 0.05)]).all()
