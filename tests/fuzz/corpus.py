"""Small files of every format that is read, written as `preprocess synth` writes them, cut down so that reading one takes a
fraction of a millisecond."""

from __future__ import annotations

import io
import json
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from written_glb import WrittenGlb, encode_glb

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM, canonical_depth_mm
from preprocess.geometry.mesh import Mesh
from preprocess.synth.bnt import BACKGROUND, LANDMARKS, encode_lm3
from preprocess.synth.label_sheet import encode_sheet
from preprocess.synth.landmarks import BP4D_ORDER
from preprocess.synth.obj import encode_obj
from preprocess.synth.wrl import encode_bnd, encode_bu3dfe_wrl, encode_bu4dfe_wrl


@cache
def face(step_mm: float = 22.0) -> tuple[Mesh, np.ndarray]:
    """An average face over a grid: the mesh with its texture, and uv (N, 2), one pair a vertex."""
    xs, ys = np.meshgrid(np.arange(-66, 66.1, step_mm), np.arange(-77, 77.1, step_mm))
    points = np.stack([xs, ys, canonical_depth_mm(xs, ys)], -1).reshape(-1, 3).astype(np.float32)
    rows, columns = xs.shape
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + columns + 1], 1), np.stack([a, a + columns + 1, a + columns], 1)]
    )
    uv = ((points[:, :2] - points[:, :2].min(0)) / np.ptp(points[:, :2], axis=0)).astype(np.float32)
    triangles = triangles.astype(np.int32)
    return Mesh(points, triangles, uv[triangles], picture()), uv


@cache
def picture(size: int = 12) -> np.ndarray:
    shade = np.linspace(60, 220, size).astype(np.uint8)
    return np.stack(
        [np.tile(shade, (size, 1)), np.tile(shade[:, None], (1, size)), np.full((size, size), 120, np.uint8)], -1
    )


def image(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def wrl(style: str, step_mm: float = 22.0) -> bytes:
    mesh, uv = face(step_mm)
    encode = encode_bu3dfe_wrl if style == "bu3dfe" else encode_bu4dfe_wrl
    return encode(mesh, uv, "face.png")


def obj(*, slashes: bool = True, step_mm: float = 22.0) -> bytes:
    return encode_obj(*face(step_mm), "face.mtl", slashes=slashes)


def obj_with_quads() -> bytes:
    """Polygons, negative indices, vertex colours, a line that goes on in the next."""
    return b"""mtllib face.mtl
v 0 0 0 0.5 0.5 0.5
v 10 0 0 0.5 0.4 0.3
v 10 10 0 0 0 1
v 0 10 2 1 1 1
v 5 15 1 0 1 0
vt 0 0
vt 1 0
vt 1 1
vn 0 0 1
usemtl face
f 1/1/1 2/2/1 3/3/1 \\
4/1/1
f -1//1 -3//1 -2//1
f 3 4 5 # corners alone
"""


def obj_of_parts() -> bytes:
    """Several material files on a line, parts with a texture and without, corners without texture coordinates."""
    return b"""\xef\xbb\xbfmtllib none.mtl face.mtl
v 0 0 0 255 128 0
v 10 0 0 0 0 0
v 10 10 0 1 2 3
v 0 10 2 9 9 9
vt 0 0
vt 1 0
vt 1 1
usemtl face
f 1/1 2/2 3/3
usemtl other
f 1/1 3/3 4/2
f 1 2 4
usemtl Face
f 2/2 3/3 4/1
"""


MTL = b"newmtl face\nKa 1 1 1\nKd 1 1 1\nillum 1\nmap_Kd -s 1 1 1 -clamp on face.png\nnewmtl other\nmap_Ka other.png\n"


MTL_OF_OPTIONS = (
    b"\xef\xbb\xbfnewmtl\tface\r\nKd 0.2 0.4 0.6\r\nmap_Kd -s 0.5 1 1 -o 0.5 -mm 0.1 2 -t 0 0 1 face.png -bm 1 -clamp on\r\n"
    b'newmtl other\nKd 255 0 0\nmap_Kd "f%61ce.png"\nmap_Bump -bm 0.5 bump.png\nnewmtl third\nmap_Kd l\xe4cheln.png\n'
)


def ply_of_parts() -> bytes:
    """Two images, texture numbers, faces without texture coordinates, colours of 16 bits with alpha; lines end with CR."""
    return (
        b"ply\nformat ascii 1.0\ncomment TEXTUREFILE face.png\ncomment TextureFile other.png\nelement vertex 4\n"
        b"property float x\nproperty float y\nproperty float z\nproperty ushort red\nproperty ushort green\n"
        b"property ushort blue\nproperty uchar alpha\nelement face 3\nproperty list uchar int vertex_indices\n"
        b"property list uchar float texcoord\nproperty int texnumber\nend_header\n0 0 0 65535 0 0 255\n10 0 0 0 65535 0 255\n"
        b"10 10 0 0 0 65535 9\n0 10 5 7 8 9 255\n4 0 1 2 3 8 0 0 1 0 1 1 0 1 0\n3 0 1 3 0 0\n3 1 2 3 6 0 0 1 0 1 1 -1\n"
    ).replace(b"\n", b"\r")


def wrl_with_colors() -> bytes:
    return b"""#VRML V2.0 utf8
Transform { translation 0 0 5 rotation 0 1 0 .3 children [ DEF S Shape {
appearance Appearance { texture DEF T ImageTexture { url [ "none.png" "face.png" ] repeatS FALSE }
textureTransform TextureTransform { scale 2 .5 rotation .4 center .5 .5 translation .1 0 } }
geometry IndexedFaceSet { colorPerVertex TRUE coord Coordinate { point [ 0 0 0, 10 0 0, 10 10 0, 0 10 5 ] }
coordIndex [ 0 1 2 3 -1 0 1 3 -1 ] color Color { color [ 1 0 0, 0 1 0 0 0 1, .5 .5 .5 ] } colorIndex [ 0 1 2 3 -1 0 1 3 -1 ]
texCoord TextureCoordinate { point [ 0 0, 1 0, 1 1, 0 1 ] } } }
Shape { geometry Sphere { radius 2 } } USE S Inline { url "face.png" } ] }
"""


def ply_text() -> bytes:
    mesh, uv = face()
    head = (
        f"ply\nformat ascii 1.0\ncomment TextureFile face.png\nelement vertex {len(uv)}\nproperty float x\nproperty float y\n"
        "property float z\nproperty float s\nproperty float t\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(mesh.triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = "".join(
        f"{x:.2f} {y:.2f} {z:.2f} {u:.3f} {v:.3f} 120 100 90\n"
        for (x, y, z), (u, v) in zip(mesh.vertices_mm, uv, strict=True)
    )
    return (head + rows + "".join(f"3 {a} {b} {c}\n" for a, b, c in mesh.triangles)).encode()


def ply_binary(order: str = "<") -> bytes:
    mesh, _ = face()
    name = "little" if order == "<" else "big"
    head = (
        f"ply\nformat binary_{name}_endian 1.0\ncomment TextureFile face.png\nelement vertex {len(mesh.vertices_mm)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.triangles)}\nproperty list uchar int vertex_index\n"
        "property list uchar float texcoord\nend_header\n"
    ).encode()
    assert mesh.uv is not None
    faces = b"".join(
        struct.pack(f"{order}B3iB6f", 3, *corners, 6, *uv.ravel())
        for corners, uv in zip(mesh.triangles.tolist(), mesh.uv, strict=True)
    )
    return head + mesh.vertices_mm.astype(order + "f4").tobytes() + faces


def off() -> bytes:
    mesh, _ = face()
    rows = "".join(f"{x:.2f} {y:.2f} {z:.2f} 120 100 90 255\n" for x, y, z in mesh.vertices_mm)
    faces = "".join(f"3 {a} {b} {c}\n" for a, b, c in mesh.triangles)
    return f"COFF\n{len(mesh.vertices_mm)} {len(mesh.triangles)} 0\n{rows}{faces}".encode()


def stl_binary() -> bytes:
    mesh, _ = face(44.0)
    corners = mesh.vertices_mm[mesh.triangles]
    rows = b"".join(struct.pack("<12fH", 0, 0, 1, *row.ravel(), 0) for row in corners)
    return b"face".ljust(80, b"\0") + struct.pack("<I", len(corners)) + rows


def stl_text() -> bytes:
    mesh, _ = face(44.0)
    facets = []
    for corners in mesh.vertices_mm[mesh.triangles]:
        points = "\n".join(f"vertex {x:.2f} {y:.2f} {z:.2f}" for x, y, z in corners)
        facets.append(f"facet normal 0 0 1\nouter loop\n{points}\nendloop\nendfacet\n")
    return ("solid face\n" + "".join(facets) + "endsolid face\n").encode()


def stl_colored() -> bytes:
    """As Magics writes them: a colour of the file in the header, a triangle's own behind it."""
    data = bytearray(stl_binary())
    data[:40] = b"solid face COLOR=\x80\x40\x20\xff,MATERIAL=".ljust(40)
    for k in range((len(data) - 84) // 50):
        data[84 + 50 * k + 48 : 84 + 50 * k + 50] = (k * 577 & 0xFFFF).to_bytes(2, "little")
    return bytes(data)


def glb(*, index_type: str = "<u2", with_colors: bool = False) -> bytes:
    mesh, uv = face(44.0)
    colors = np.full((len(uv), 4), 0.5, "<f4")
    parts = [
        mesh.vertices_mm.astype("<f4").tobytes(),
        uv.astype("<f4").tobytes(),
        mesh.triangles.astype(index_type).tobytes(),
    ]
    parts += [image("PNG"), colors.tobytes()]
    parts = [part + b"\0" * (-len(part) % 4) for part in parts]
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    attributes = {"POSITION": 0, "TEXCOORD_0": 1} | ({"COLOR_0": 3} if with_colors else {})
    low, high = mesh.vertices_mm.min(0).tolist(), mesh.vertices_mm.max(0).tolist()
    count = len(uv)
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, 2]}],
        "nodes": [
            {"mesh": 0, "translation": [0, 0, 1], "children": [1]},
            {"matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]},
            {"mesh": 0, "scale": [1, 1, 1], "rotation": [0, 0, 0, 1]},
        ],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 2, "material": 0, "mode": 4}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3", "min": low, "max": high},
            {"bufferView": 1, "componentType": 5126, "count": count, "type": "VEC2"},
            {"bufferView": 2, "componentType": {"<u1": 5121, "<u2": 5123, "<u4": 5125}[index_type],
             "count": mesh.triangles.size, "type": "SCALAR"},
            {"bufferView": 4, "componentType": 5126, "count": count, "type": "VEC4"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(part)} for start, part in zip(starts, parts, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }  # fmt: skip
    return encode_glb(document, b"".join(parts))


def glb_of_everything(*, glossy: bool = False) -> bytes:
    """Quantised and sparse numbers, a morph target, a skin, a strip, points, a texture placed and tinted, transparency."""
    mesh, uv = face(44.0)
    glb = WrittenGlb()
    n = len(uv)
    position = glb.accessor(np.rint(mesh.vertices_mm).astype("<i2"), stride=8)
    place = glb.accessor(np.rint(uv.clip(0, 1) * 65535).astype("<u2"), normalized=True)
    colors = glb.accessor(np.full((n, 4), 200, "<u1"), normalized=True)
    indices = glb.accessor(mesh.triangles.astype("<u2").ravel())
    painted = glb.primitive(POSITION=position, TEXCOORD_1=place, indices=indices)
    painted["targets"] = [{"POSITION": glb.sparse(n, [0, 3], np.array([[0, 1, 0], [0, 0, 2]], "<i2"))}]
    info: dict[str, Any] = {"index": glb.texture(kind="WEBP" if glossy else "PNG", sampler=0)}
    info["extensions"] = {
        "KHR_texture_transform": {"offset": [0.1, 0], "scale": [0.5, 0.5], "rotation": 0.1, "texCoord": 1}
    }
    glb.document["samplers"] = [{"wrapS": 33071, "wrapT": 33648}]
    if glossy:
        source = glb.document["textures"][0].pop("source")
        glb.document["textures"][0]["extensions"] = {"EXT_texture_webp": {"source": source}}
        extension = {"diffuseTexture": info, "diffuseFactor": [1, 0.5, 1, 1]}
        glb.paint(painted, extensions={"KHR_materials_pbrSpecularGlossiness": extension})
    else:
        base = glb.paint(painted, alphaMode="BLEND")
        base |= {"baseColorTexture": info, "baseColorFactor": [1, 0.5, 1, 0.5]}
    skinned = glb.primitive(POSITION=position, COLOR_0=colors, indices=glb.accessor(np.arange(n, dtype="<u2")))
    skinned["mode"] = 5
    joints, weights = np.tile(np.array([0, 1, 1, 0], "<u1"), (n, 1)), np.tile(np.array([64, 64, 127, 0], "<u1"), (n, 1))
    skinned["attributes"] |= {"JOINTS_0": glb.accessor(joints), "WEIGHTS_0": glb.accessor(weights, normalized=True)}
    glb.paint(skinned)["baseColorFactor"] = [0.5, 0.5, 0.5, 1]
    glb.primitive(POSITION=position)["mode"] = 0
    inverse = glb.accessor(np.tile(np.eye(4, dtype="<f4").reshape(16), (2, 1)))
    glb.document["skins"] = [{"joints": [1, 2], "inverseBindMatrices": inverse}]
    glb.document["nodes"] = [{"mesh": 0, "skin": 0}, {"children": [2], "scale": [-1, 1, 1]}, {"rotation": [0, 0, 1, 0]}]
    glb.document["scenes"] = [{"nodes": [0, 1]}]
    glb.document["meshes"][0]["weights"] = [0.5]
    glb.document["animations"] = [{"channels": [], "samplers": []}]
    glb.document["extensionsUsed"] = ["KHR_texture_transform", "EXT_unknown"]
    glb.document["buffers"] = [{"byteLength": len(glb.binary)}]
    return encode_glb(glb.document, glb.binary)


def bnt(step_mm: float = 16.0) -> bytes:
    xs, ys = np.meshgrid(np.arange(-64, 64.1, step_mm), np.arange(-80, 80.1, step_mm))
    zs = canonical_depth_mm(xs, ys)
    x, y, z = (np.where(np.hypot(xs, ys) > 85, BACKGROUND, values) for values in (xs, ys, zs))
    planes = np.stack([x, y, z, (xs + 64) / 128, (80 - ys) / 160])
    name = b"bs000_E_HAPPY_0.png"
    return (
        struct.pack("<HHdH", *xs.shape, BACKGROUND, len(name))
        + name
        + struct.pack("<I", planes.size)
        + planes.astype("<f8").tobytes()
    )


def range_text(step_mm: float = 16.0) -> bytes:
    xs, ys = np.meshgrid(np.arange(-64, 64.1, step_mm), np.arange(80, -80.1, -step_mm))
    hidden = np.hypot(xs, ys) > 85
    planes = [np.where(hidden, -999999, values) for values in (xs, ys, canonical_depth_mm(xs, ys))]
    lines = [" ".join(f"{number:g}" for number in plane.ravel()) for plane in (1 - hidden, *planes)]
    return f"{xs.shape[0]} rows\n{xs.shape[1]} columns\npixels (flag X Y Z):\n".encode() + "\n".join(lines).encode()


def depth_image() -> bytes:
    xs, ys = np.meshgrid(np.arange(-64, 64.1, 16), np.arange(80, -80.1, -16))
    levels = np.where(np.hypot(xs, ys) > 85, 0, 600 - canonical_depth_mm(xs, ys)).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def camera() -> bytes:
    matrix = [37.5, 0, 0, 0, 37.5, 0, 4, 5, 1]
    return json.dumps({"width": 9, "height": 11, "intrinsic_matrix": matrix, "depth_scale": 1000}).encode()


def off_of_parts() -> bytes:
    return (
        b"STCNOFF3 1 0\n"
        + b"0 0 0 0 0 1 .5 .5 .5 1 0 0\n10 0 0 0 0 1 1 0 0 1 1 0\n0 10 0 0 0 1 0 1 0 .5 0 1\n3 0 1 2 255 0 0\n"
    )


def _bu_points() -> np.ndarray:
    """83 points on the face whose groups have their usual centres."""
    points = np.tile(np.array(CANONICAL_POINTS_MM["nose"], float), (83, 1))
    for name, part in (("left_eye", slice(0, 8)), ("right_eye", slice(8, 16)), ("mouth", slice(48, 60))):
        points[part] = CANONICAL_POINTS_MM[name]
    return points


def bnd() -> bytes:
    return encode_bnd(np.arange(83), _bu_points())


def pse() -> bytes:
    return encode_bnd(np.arange(8), _bu_points()[[8, 8, 0, 0, 36, 36, 36, 36]])


def tbnd() -> bytes:
    rows = [(1.0, -2.0, 0.5), *(_bu_points()[BP4D_ORDER] * [1, 1, -1]).tolist()]
    return "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in rows).encode()


def lm3(newline: str = "\n") -> bytes:
    return encode_lm3({name: np.array([x, q, 5.0]) for name, (x, q) in LANDMARKS.items()}, newline)


def ljson() -> bytes:
    points = [list(CANONICAL_POINTS_MM[name]) for name in ("left_eye", "right_eye", "nose", "mouth")]
    labels = [{"label": name, "mask": [i]} for i, name in enumerate(("leye", "reye", "nose", "mouth"))]
    return json.dumps({"version": 2, "labels": labels, "landmarks": {"points": points}}).encode()


def named_points() -> bytes:
    return "".join(f"{name},{x},{y},{z}\n" for name, (x, y, z) in CANONICAL_POINTS_MM.items()).encode()


def au_occurrence() -> bytes:
    rows = [range(100), *([frame, *[(frame + k) % 2 if k % 3 else 9 for k in range(99)]] for frame in range(1, 6))]
    return "\n".join(",".join(map(str, row)) for row in rows).encode() + b"\n"


def au_named() -> bytes:
    rows = [(1, 1, 2, 12, 39), *((frame, frame % 2, 9, 1, 0) for frame in range(3, 9))]
    return "\r\n".join(",".join(map(str, row)) for row in rows).encode() + b"\r\n"


def facscodes() -> bytes:
    return b"bs000_E_HAPPY_0  ->  6C+L7B+12D\r\nbs000_N_N_0  ->  0\r\nbs001_LFAU_12_0  ->  R12E+V25+63\r\n"


def au_intensity() -> bytes:
    return b"".join(b"%d,%d\n" % (frame, (9, 0, 1, 5)[frame % 4]) for frame in range(1, 12))


def label_sheet() -> bytes:
    rows: list[list[str | int]] = [
        ["S01", "clip1", "Positive", 2, 3, 5, "6+12(R)"],
        ["S01", "clip2", "negative, others", 0, "", "/", "AU4"],
    ]
    return encode_sheet(("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs"), rows)


def manifest() -> bytes:
    return (
        b"path,subject,label,sequence,frame,units,up,facing,texture,landmarks,sample_id,age\n"
        b"face.obj,A,Angry,,,mm,y,z,,,,31\n"
        b"face.wrl,B,happiness,run,0,,,,face.png,face.csv,b0,\n"
        b'"./sub/face.ply",B,joy,run,1,cm,+y,-z,,,b1,\n'
    )


def label_map() -> bytes:
    return b"word,class\njoy,happiness\nAgry,anger\nn/a,\n"


def groups() -> bytes:
    return b"sample_id,age,sex\na,31,F\nb,,M\n"
