"""Decoding against the encoding's definition; mirroring against geometry that is mirrored before it is encoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analytic_face import make_face
from conftest import MakeCache

from preprocess.build.dynamic import pool_frames
from preprocess.geometry.mesh import Mesh
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from shared.cache import open_cache
from shared.errors import FacetError
from shared.modalities import DEPTH_SEEN_MM, MODALITIES, Depth
from shared.schema import ARRAYS, CacheInfo, RenderSettings, View
from shared.store.storage import encode_shard, write_file
from train.data.pixels import mirror, normalise, resize, to_device, to_unit

CPU = torch.device("cpu")


def ellipsoid(x_of_nose: float, size: int = 33) -> dict[str, np.ndarray]:
    """Normals, depth and colour of an off-centre ellipsoid seen from the front, encoded as the cache does."""
    place = ((np.arange(size) + 0.5) / size * 2 - 1) * 100  # mm
    x, y = np.meshgrid(place - x_of_nose, -place)
    inside = 1 - (x / 70) ** 2 - (y / 90) ** 2
    z = 60 * np.sqrt(np.clip(inside, 0, None))
    normal = np.stack([x / 70**2, y / 90**2, z / 60**2], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
    face = inside > 0
    return {
        "normal": ((np.round(127 * normal) + 128) * face[..., None]).astype(np.uint8),
        "depth": ((np.round((z - 60) / 0.02) + 32768) * face).astype(np.uint16),
        "texture": (np.stack([120 + x, 100 + y, 90 + z], -1).clip(1, 255) * face[..., None]).astype(np.uint8),
    }


@pytest.mark.parametrize("modality", ["normal", "depth"])
def test_mirrored_image_is_the_image_of_the_mirrored_surface(modality: str) -> None:
    image, wanted = ellipsoid(15)[modality], ellipsoid(-15)[modality]
    found = mirror(to_device(image, CPU), modality)
    difference = np.abs(found.numpy().astype(int) - wanted.astype(int))
    # np.round rounds halves to even: at an exact half, the mirrored value may round to the other side
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert not np.array_equal(image, wanted)  # the test would notice that nothing was done
    assert torch.equal(mirror(found, modality), to_device(image, CPU))


def test_texture_is_mirrored_by_columns() -> None:
    image = ellipsoid(15)["texture"]
    assert np.array_equal(mirror(torch.from_numpy(image), "texture").numpy(), image[:, ::-1])


def test_u16_arrives_unharmed() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_device(values, CPU).numpy(), values.astype(np.int32))


def test_depth_is_clipped_to_the_face_and_background_is_far() -> None:
    def encode(z_mm: float) -> int:
        return round(z_mm / 0.02) + 32768

    values = [0, encode(DEPTH_SEEN_MM[0]), encode(DEPTH_SEEN_MM[1]), encode(-45), encode(-300), encode(200)]
    unit = to_unit(to_device(np.array([values], np.uint16), CPU), "depth")
    assert unit.shape == (3, 1, 6)
    assert torch.allclose(unit[0, 0], torch.tensor([0.0, 0.0, 1.0, 0.5, 0.0, 1.0]), atol=1e-6)
    assert torch.equal(unit[0], unit[2])
    rows = to_device(np.array([values, values[::-1]], np.uint16), CPU)  # any leading dimensions, each image by itself
    several = to_unit(torch.stack([rows, rows.flip(0)])[:, None], "depth")
    assert several.shape == (2, 1, 3, 2, 6)
    assert torch.equal(several[1, 0, :, 1:], unit)


def test_depth_of_dynamic_images_is_a_change() -> None:
    def encode(change_mm: float) -> int:
        return round(change_mm / 0.02) + 32768

    values = [0, 32768, encode(-5), encode(5), encode(2.5), encode(-60), encode(60)]
    pixels = to_device(np.array([values], np.uint16), CPU)
    unit = to_unit(pixels, "depth", dynamic=True)
    assert torch.allclose(unit[0, 0], torch.tensor([0.0, 0.5, 0.0, 1.0, 0.75, 0.0, 1.0]), atol=1e-6)
    normal = torch.randint(0, 256, (4, 5, 3), dtype=torch.uint8)
    assert torch.equal(to_unit(normal, "normal", dynamic=True), to_unit(normal, "normal"))


@pytest.mark.parametrize("modality", ["texture", "normal", "depth"])
def test_mirrored_dynamic_image_is_the_dynamic_image_of_mirrored_frames(modality: str, tiny_cache: MakeCache) -> None:
    """Mirroring and pooling may change places: 256 − value is right for normals centred on 128 as it is for normals."""
    modalities = ("texture", "normal", "depth")
    options = {"num_subjects": 1, "scans_per_class": 1, "num_frames": 7, "modalities": modalities}
    cache = open_cache(tiny_cache(**options))
    pooled = to_device(pool_frames(cache, modality, range(7)), CPU)
    frames = {m: cache.arrays.read(m, range(cache.info.num_samples)) for m in modalities}
    for name in modalities:
        frames[name] = mirror(to_device(frames[name], CPU), name).numpy().astype(ARRAYS[name].dtype)
    frames["scan_to_face"] = np.zeros((cache.info.num_samples, 4, 4), np.float32)
    for name, data in encode_shard(cache.info, 0, frames, {}).items():
        write_file(cache.path / name, data)
    mirrored = to_device(pool_frames(open_cache(cache.path), modality, range(7)), CPU)
    assert torch.equal(mirror(pooled, modality), mirrored)
    assert not torch.equal(pooled, mirrored)
    if modality == "normal":
        assert pooled[(pooled > 0).any(-1)].min() >= 1
        assert (pooled[..., 0].int() - 128).abs().max() > 5


def test_colour_and_size() -> None:
    image = torch.randint(0, 256, (2, 3, 40, 40, 3), dtype=torch.uint8)
    unit = to_unit(image, "texture")
    assert unit.shape == (2, 3, 3, 40, 40)
    assert unit.max() <= 1
    assert torch.equal(unit[1, 2, 0], image[1, 2, :, :, 0] / 255)
    assert resize(unit, 40) is unit
    half = resize(unit, 20)
    assert half.shape == (2, 3, 3, 20, 20)
    assert half.mean().item() == pytest.approx(unit.mean().item(), abs=5e-3)
    flat = resize(torch.full((1, 3, 64, 64), 0.25), 24)
    assert torch.allclose(flat, torch.tensor(0.25))  # antialiasing keeps a constant
    assert torch.allclose(normalise(unit, (0.5, 0.4, 0.3), (0.2, 0.1, 0.3))[0, 0, 1], (unit[0, 0, 1] - 0.4) / 0.1)


def test_texture_without_surface_has_the_background() -> None:
    """Beside a rendered face and in its open mouth."""
    face = make_lopsided_face()
    assert face.uv is not None
    x, y, _ = face.vertices_mm[face.triangles].mean(1).T
    kept = np.hypot(x, y + 30) > 12
    pierced = Mesh(face.vertices_mm, np.ascontiguousarray(face.triangles[kept]), face.uv[kept], face.texture)
    texture = render_views(pierced, build_cameras((View(0), View(20))), size_px=64).texture
    assert texture is not None
    empty = torch.from_numpy(~texture.any(-1))
    centre = round(32 + 30 / 201.6 * 64)
    assert empty[:, centre, 32].all() and empty[:, 0, 0].all() and not empty[:, 32, 32].any()
    pixels = to_device(texture, CPU)
    black, filled = to_unit(pixels, "texture"), to_unit(pixels, "texture", background=(0.25, 0.0, 0.75))
    assert torch.equal(black, pixels.movedim(-1, 1) / 255)
    assert filled.movedim(1, -1)[empty].unique(dim=0).tolist() == [[0.25, 0.0, 0.75]]
    assert torch.equal(filled.movedim(1, -1)[~empty], black.movedim(1, -1)[~empty])
    for modality, stored in (("normal", pixels), ("depth", pixels[..., 0].int())):
        assert torch.equal(to_unit(stored, modality, background=(0.5,) * 3), to_unit(stored, modality))


def test_a_modality_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FacetError, match="unknown modality 'curvature', expected one of texture, normal, depth"):
        mirror(torch.zeros(2, 2, 3, dtype=torch.uint8), "curvature")
    monkeypatch.setitem(MODALITIES, "curvature", Depth("curvature", "mm", dtype="uint16", channels=(), axes=()))
    image = ellipsoid(15)["depth"]
    pixels = to_device(image, CPU)
    assert torch.equal(mirror(pixels, "curvature"), pixels.flip(-1))
    assert torch.equal(to_unit(pixels, "curvature"), to_unit(pixels, "depth"))
    assert MODALITIES["curvature"].draw(image, dynamic=False).shape == (33, 33, 3)
    settings = RenderSettings(size_px=16, modalities=("depth", "curvature"))
    assert CacheInfo("folder", "", (), settings, num_samples=5).arrays()["curvature"] == (5, 3, 16, 16)


def make_lopsided_face() -> Mesh:
    """A textured face that no mirror maps onto itself: rough, with a swelling on one cheek."""
    face, rng = make_face(), np.random.default_rng(0)
    vertices = face.vertices_mm + rng.normal(0, 0.3, face.vertices_mm.shape)
    vertices[:, 2] += 8 * np.exp(-((vertices[:, 0] - 30) ** 2 + (vertices[:, 1] - 5) ** 2) / 200)
    uv = (vertices[face.triangles][..., :2] + (80, 105)) / (160, 210)
    texture = rng.integers(0, 256, (150, 150, 3), np.uint8)
    return Mesh(vertices.astype(np.float32), face.triangles, uv.astype(np.float32), texture)


def test_a_flip_is_the_rendering_of_the_mirrored_mesh_from_negated_yaws() -> None:
    """By the renderer itself, whose triangles turn over with the mesh: within a grey level, or a step of depth."""
    mesh = make_lopsided_face()
    assert mesh.uv is not None
    triangles, uv = np.ascontiguousarray(mesh.triangles[:, ::-1]), np.ascontiguousarray(mesh.uv[:, ::-1])
    mirrored = Mesh(mesh.vertices_mm * np.array([-1, 1, 1], np.float32), triangles, uv, mesh.texture)
    views = (View(0), View(20), View(-35, 15))
    negated = build_cameras(tuple(View(-view.yaw_deg, view.pitch_deg) for view in views))
    images = render_views(mesh, build_cameras(views), size_px=64)
    wanted = render_views(mirrored, negated, size_px=64)
    for modality in MODALITIES:
        pixels = to_device(getattr(images, modality), CPU)
        difference = (mirror(pixels, modality) - to_device(getattr(wanted, modality), CPU).int()).abs()
        assert difference.max() <= 1
        assert (pixels.int() - to_device(getattr(wanted, modality), CPU).int()).abs().max() > 50  # a flip is needed
