"""Damaged data sets: folders whose names, links and files are not as they should be, listed, summarised and read; and scans
that are read, aligned and drawn."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from fuzz import corpus, mutations
from fuzz.targets import Target

from preprocess.alignment.anthropometry import CANONICAL_POINTS_MM
from preprocess.build.plan import plan_rows
from preprocess.build.shard import hash_source, list_sources, stat_sources
from preprocess.datasets import DATASETS
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord
from preprocess.geometry.mesh import Mesh
from shared.cache import SAMPLES_CSV
from shared.csv_tables import encode_table, read_table
from shared.errors import FacetError, ScanError
from shared.schema import RenderSettings, Sample


@dataclass(frozen=True)
class Link:
    target: str


# Path relative to the case's folder → bytes, a link, or None for an empty folder. Paths may hold bytes that are no UTF-8.
Tree = dict[str, bytes | Link | None]

_NAMES = (
    "f0001", "F0001 ", " F0001", "F٠٠٠١", "bſ000", "BS000", "Angry.", "ANGRY", "angry", "T01", "T1 ", "t1", "T9", "T0",
    "000", "000.wrl",
    "0.wrl", "00000.WRL", "-1.wrl", "1e3.wrl", "٣.wrl", "9" * 200 + ".wrl", "9" * 200 + ".obj", "9" * 30 + ".bnd",
    "0001.OBJ", "0.obj",
    ".wrl", "wrl", "a\nb", "a\tb", "a\rb", 'a"b', "a,b", "a;b", "a'b", "a\\b", "\udcff", "\udcff.wrl",
    "F0001_AN01WH_F3D.WRL",
    "F0001_AN01WH_RAW.wrl", "F0001_NE00WH_F3D.wrl", "F0001_XX01WH_F3D.wrl", "bs000_E_HAPPY_0.BNT", "bs000_.bnt",
    "bs000_E_.bnt",
    "bs001_E_HAPPY_0.bnt", "manifest.CSV", "~$labels.xlsx", "labels.XLSX", "3DFeatures", "3D Features", "BU4DFE_BND",
    "AUCoding",
    "AU_OCC", "F001_T1.csv", "F001_T1_AU12.csv", "x" * 255, "é" * 100, "e\u0301", "\u202e", "😀", "%s", "{}", "$HOME",
    "-rf", "..x",
    "CON", "nul.obj", "SYNTHETIC.txt", "BU_WrlViewer_V2", "F001", "M001", "F002", "S01", "1", "01", "sub_001",
    "F042", "T10", "2D+3D", "F001.zip", "a.bndplus", "facscodes.lst", "facscodes", "facscodes.zip", "F0001_AN01WH_RAW.pse",
)  # fmt: skip
_LINKS = (
    "..",
    ".",
    "loop",
    "../..",
    "/",
    "/etc/passwd",
    "/dev/zero",
    "../outside.png",
    "no such file",
    "F001",
    "F0001",
)
_MAX_READ = 3  # scans of a damaged data set that are read


@cache
def _trees() -> dict[str, Tree]:
    jpeg, png, bmp = corpus.image("JPEG"), corpus.image("PNG"), corpus.image("BMP")
    wrl3, wrl4, obj, bnd = corpus.wrl("bu3dfe"), corpus.wrl("bu4dfe"), corpus.obj(), corpus.bnd()
    bu3dfe: Tree = {}
    for stem in ("F0001/F0001_AN01WH", "F0001/F0001_NE00WH", "M0001/M0001_HA04BL"):
        bu3dfe |= {f"root/{stem}_F3D.wrl": wrl3, f"root/{stem}_F3D.bmp": bmp, f"root/{stem}_F3D.bnd": bnd}
    bu3dfe |= {"root/M0001/M0001_SU04BL_RAW.wrl": wrl3, "root/M0001/M0001_SU04BL_RAW.pse": corpus.pse()}
    bosphorus: Tree = {"root/facscodes/facscodes.lst": corpus.facscodes()}
    for stem in ("bs000/bs000_E_HAPPY_0", "bs000/bs000_N_N_0", "bs001/bs001_LFAU_12_0"):
        bosphorus |= {f"root/{stem}.bnt": corpus.bnt(), f"root/{stem}.png": png, f"root/{stem}.lm3": corpus.lm3()}
    bu4dfe: Tree = {}
    for stem in ("F001/Angry/000", "F001/Angry/001", "F001/Happy/000", "M001/Sad/000"):
        bu4dfe |= {f"root/{stem}.wrl": wrl4, f"root/{stem}.jpg": jpeg, f"root/BU4DFE_BND_V1.1/{stem}.bnd": bnd}
    bp4d: Tree = {
        "root/AUCoding/AU_OCC/F001_T1.csv": corpus.au_occurrence(),
        "root/AUCoding/AU_INT/F001_T1_AU12.csv": corpus.au_intensity(),
    }
    for stem in ("F001/T1/0000", "F001/T1/0001", "F001/T2/0000", "M001/T8/0000"):
        base = f"root/Sequences(2D+3D)/{stem}"
        bp4d |= {f"{base}.obj": obj, f"{base}.mtl": corpus.MTL, f"{base}.jpg": jpeg}
        bp4d |= {f"root/3DFeatures/{stem}.tbnd": corpus.tbnd()}
    fourdme: Tree = {"root/labels.xlsx": corpus.label_sheet()}
    for clip, frame in (("clip1", 2), ("clip1", 3), ("clip1", 4), ("clip2", 0), ("clip2", 1)):
        fourdme |= {f"root/S01/{clip}/{frame:03d}.obj": obj, f"root/S01/{clip}/{frame:03d}.png": png}
    fourdme |= {"root/S01/clip2/002.wrl": wrl4}
    folder: Tree = {
        "root/manifest.csv": corpus.manifest(), "root/face.obj": obj, "root/face.mtl": corpus.MTL, "root/face.png": png,
        "root/face.wrl": wrl4, "root/face.csv": corpus.named_points(), "root/sub/face.ply": corpus.ply_text(),
    }  # fmt: skip
    return {"bu3dfe": bu3dfe, "bosphorus": bosphorus, "bu4dfe": bu4dfe, "bp4d": bp4d, "4dme": fourdme, "folder": folder}


def _damage(rng: random.Random, tree: Tree) -> Tree:
    """One to three of: an entry renamed, removed, doubled, made a folder, a file or a link; a file emptied or changed."""
    tree = dict(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not tree:
            break
        path = rng.choice(list(tree))
        parts = path.split("/")
        depth = rng.randint(1, len(parts))
        entry = "/".join(parts[:depth])
        below = {name: value for name, value in tree.items() if name == entry or name.startswith(entry + "/")}
        how = rng.randrange(9)
        if how == 0 and isinstance(tree[path], bytes):
            tree[path] = mutations.mutate_either(rng, tree[path])  # type: ignore[arg-type]
            continue
        if how == 1 and isinstance(tree[path], bytes):
            tree[path] = rng.choice((b"", b"\0" * 100, b" \n"))
            continue
        other = entry.rpartition("/")[0] + "/" + rng.choice((rng.choice(_NAMES), parts[depth - 1].swapcase()))
        if depth == 1:
            other, how = "root", 8
        if how in (2, 3, 4):
            for name in below:
                del tree[name]
        if how in (2, 7):
            tree |= {other + name[len(entry) :]: value for name, value in below.items()}
        elif how == 3:
            tree[entry] = rng.choice((None, b"", b"x" * 50))
        elif how == 4:
            tree[entry] = Link(rng.choice(_LINKS))
        elif how == 5:
            tree[other] = rng.choice((None, b"", b"x", Link(rng.choice(_LINKS))))
        elif how == 6:
            tree[entry + "/" + rng.choice(_NAMES)] = None
    return tree


def _write(tree: Tree, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "outside.png").write_bytes(corpus.image("PNG"))
    (folder / "root").mkdir()
    for name, value in tree.items():
        path = folder / name
        try:  # entries may contradict each other: what comes first stays
            path.parent.mkdir(parents=True, exist_ok=True)
            if value is None:
                path.mkdir()
            elif isinstance(value, Link):
                path.symlink_to(value.target)
            elif not path.is_symlink():
                path.write_bytes(value)
        except (OSError, RuntimeError):
            continue


def _read_dataset(dataset: DatasetReader, root: Path) -> object:
    """Lists, summarises, plans and reads, as `build` does; a scan that is refused does not end it."""
    listing = dataset.find(root)
    records = listing.records
    for line in listing.notes:
        assert "\n" not in line, f"a note of several lines: {line!r}"
    try:
        plan = plan_rows(records, root / "no cache")
    except FacetError:  # two folders that differ in upper and lower case alone; its message names files below the root
        return records
    table = root.parent / SAMPLES_CSV
    table.write_bytes(encode_table(Sample, plan.samples))
    assert read_table(table, Sample) == plan.samples, "samples.csv does not hold what was found"
    for record in records[:_MAX_READ]:
        files = list_sources(dataset, root, [record])
        stat_sources(files)
        hash_source(files[record.sample_id])
        try:
            dataset.read(root, record)
        except ScanError as error:
            if str(root) not in str(error):
                raise
    return records


def _folder_target(name: str, share: float) -> Target:
    dataset = DATASETS[name]

    def prepare(rng: random.Random, case: int, folder: Path) -> Path:
        _write(_damage(rng, _trees()[name]), folder)
        return folder / "root"

    def warm_up(folder: Path) -> None:
        _write(_trees()[name], folder)
        _read_dataset(dataset, folder / "root")

    return Target(
        f"{name} folder", share, prepare, lambda root: _read_dataset(dataset, root), follows_links=True, warm_up=warm_up
    )


# --- from a mesh to images ---

_SETTINGS = RenderSettings(size_px=48, supersampling=1)


def _damage_mesh(rng: random.Random, mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles and corner uv with coordinates, indices or sizes that no scanner gives."""
    assert mesh.uv is not None
    random_numbers = np.random.default_rng(rng.randrange(2**32))
    vertices, triangles, uv = mesh.vertices_mm.copy(), mesh.triangles.copy(), mesh.uv.copy()
    for _ in range(rng.choice((1, 1, 2))):
        some = random_numbers.random(len(vertices)) < rng.choice((0.002, 0.01, 0.1, 0.5, 1.0))
        faces = random_numbers.random(len(triangles)) < rng.choice((0.002, 0.01, 0.1, 0.5, 1.0))
        huge = rng.choice((1e3, 1e5, 1e9, -1e9, 1e-30, 0.0))
        how = rng.randrange(10)
        if how == 0:
            vertices[some] *= np.float32(huge)
        elif how == 1:
            vertices[some] += random_numbers.normal(0, 1e4, (some.sum(), 3)).astype(np.float32)
        elif how == 2:
            vertices[some] = vertices[0]
        elif how == 3:
            vertices[:, rng.randrange(3)] = 0
        elif how == 4:
            triangles[faces] = triangles[faces][:, :1]  # zero area
        elif how == 5:
            triangles[faces] = random_numbers.integers(0, len(vertices), (faces.sum(), 3))
        elif how == 6:
            kept = max(int(faces.sum() * rng.choice((0.0, 1.0))), 1)
            triangles, uv = triangles[:kept], uv[:kept]
        elif how == 7:
            uv[faces[: len(uv)]] *= np.float32(rng.choice((1e6, -1e6, 1e-30, 0.0, -1.0)))
        elif how == 8:
            triangles = triangles[:, ::-1].copy()
        else:
            kept = min(max(rng.choice((3, 4, 10)), 3), len(vertices))
            vertices = vertices[:kept]
            triangles = (triangles % kept).astype(np.int32)
    return vertices, triangles, uv


def _row_target(share: float) -> Target:
    """A damaged mesh all the way: read by a data set, placed by geometry or landmarks, drawn, checked."""
    from preprocess.alignment.scan_aligner import (
        ScanAligner,  # compilers come with it: seconds that other targets need not wait
    )
    from preprocess.build.row_check import check_row
    from preprocess.rendering.cameras import build_cameras
    from preprocess.rendering.views import render_views

    meshes: dict[Path, Mesh] = {}

    def read(root: Path, record: ScanRecord) -> Mesh:
        return meshes[root]

    dataset = DatasetReader("fuzz", "", "", (), lambda root: Listing([]), read, lambda root, record: [], 4,
                            {"left_eye": (0,), "right_eye": (1,), "nose": (2,), "mouth": (3,)})  # fmt: skip

    def prepare(rng: random.Random, case: int, folder: Path) -> Path:
        meshes.clear()
        face = corpus.face(5.5)[0]
        points = np.array([CANONICAL_POINTS_MM[name] for name in dataset.landmark_groups], np.float32)
        if rng.random() < 0.2:
            points[rng.randrange(4)] *= rng.choice((np.nan, 0.0, 1e9, -1.0))
        try:
            vertices, triangles, uv = _damage_mesh(rng, face)
            landmarks = points if rng.random() < 0.7 else None
            size = rng.choice(((12, 12), (1, 1), (1, 300), (301, 1)))
            texture = np.random.default_rng(case).integers(0, 256, (*size, 3)).astype(np.uint8)
            meshes[folder] = Mesh(vertices, triangles, uv, texture, landmarks_mm=landmarks)
        except ScanError:  # refused at the door: the plain face stays
            meshes[folder] = face
        return folder

    def warm_up(folder: Path) -> None:
        for landmarks in (None, np.array([CANONICAL_POINTS_MM[n] for n in dataset.landmark_groups], np.float32)):
            root = Path(f"{landmarks is None}")
            meshes[root] = replace(corpus.face(5.5)[0], landmarks_mm=landmarks)
            draw(root)

    def draw(root: Path) -> object:
        record = ScanRecord("a", "s", "a.obj")
        aligner = ScanAligner(dataset, root, _SETTINGS, [record])
        aligned = aligner.align(record, aligner.read(record))
        views = render_views(
            aligned.mesh,
            build_cameras(_SETTINGS.views),
            size_px=_SETTINGS.size_px,
            radius_mm=_SETTINGS.crop_radius_mm,
            supersampling=1,
        )
        check_row(views, _SETTINGS)
        return aligned.mesh

    return Target("mesh to images", share, prepare, draw, names_file=False, native=True, warm_up=warm_up)


def folder_targets(*, with_images: bool = True) -> list[Target]:
    """Every data set's folder, and the way from a mesh to images."""
    return [*(_folder_target(name, 1.0) for name in _trees()), *([_row_target(1.0)] if with_images else [])]
