"""What is fuzzed: a reader, the files it is given, and how they are damaged."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import containers, corpus, mutations
from fuzz.mutations import Mutator

from preprocess.datasets.bosphorus_action_units import AU_NAMES, encode_units
from preprocess.datasets.folder import FOLDER
from preprocess.datasets.fourdme_sheet import COLUMNS, parse_clips
from preprocess.datasets.label_spelling import read_label_map, unify_labels
from preprocess.readers.au_csv import read_au_intensity, read_au_occurrence
from preprocess.readers.bnt import bnt_to_mesh, read_bnt
from preprocess.readers.bu_landmarks import read_bnd, read_pse, read_tbnd
from preprocess.readers.depth_image import PinholeCamera, read_camera, read_depth_image
from preprocess.readers.facscodes import read_facscodes
from preprocess.readers.image import read_image
from preprocess.readers.label_sheet import read_label_sheet
from preprocess.readers.landmark_points import read_face_points
from preprocess.readers.lm3 import read_lm3
from preprocess.readers.surface import find_surface_files, read_surface
from shared.errors import ScanError
from shared.groups import part_columns, read_groups


def _nothing(folder: Path) -> None:
    return None


@dataclass(frozen=True)
class Target:
    """A reader under test.

    share: of all cases, in parts of the sum of shares.
    prepare: (random numbers, case, folder) → the path to read, everything there written.
    names_file: its refusals must name a file.
    native: through a library with threads of its own, which a fork would lose: only children may load it.
    follows_links: what the user's own folder links to is read.
    warm_up: reads good files before memory and time are limited (what is compiled on first use takes seconds).
    """

    name: str
    share: float
    prepare: Callable[[random.Random, int, Path], Path]
    read: Callable[[Path], object]
    names_file: bool = True
    native: bool = False
    follows_links: bool = False
    warm_up: Callable[[Path], None] = _nothing


def write_surroundings(folder: Path) -> None:
    """What stands around a case's file, once for all: its texture and material, and ways out that must not be taken."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    outside = folder.parent
    for name in ("secret.png", "face.png"):
        (outside / name).write_bytes(corpus.image("PNG"))
    (outside / "secret.mtl").write_bytes(corpus.MTL)
    (folder / "face.png").write_bytes(corpus.image("PNG"))
    (folder / "face.mtl").write_bytes(corpus.MTL)
    (folder / "face.csv").write_bytes(corpus.named_points())
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "link.mtl").symlink_to("../secret.mtl")
    (folder / "linked").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")


def _file(
    name: str,
    share: float,
    seeds: Sequence[tuple[str, bytes]],
    read: Callable[[Path], object],
    mutate: Mutator,
    *,
    as_they_are: Sequence[tuple[str, bytes]] = (),
) -> Target:
    """A target whose cases are damaged copies of seeds (name, bytes); first those that are malformed as they are."""

    def prepare(rng: random.Random, case: int, folder: Path) -> Path:
        write_surroundings(folder)
        if case < len(as_they_are):
            file, data = as_they_are[case]
        else:
            file, data = seeds[case % len(seeds)]
            data = mutate(rng, data)
        path = folder / file
        path.write_bytes(data)
        return path

    def warm_up(folder: Path) -> None:
        write_surroundings(folder)
        for file, data in seeds:
            (folder / file).write_bytes(data)
            read(folder / file)

    return Target(name, share, prepare, read, warm_up=warm_up)


def _own(*arguments: Any, **options: Any) -> Target:
    """A file that the user wrote: where it names a link, the link is followed."""
    return replace(_file(*arguments, **options), follows_links=True)


def _surface(path: Path) -> object:
    """The mesh; and the files that decide it, which a build hashes."""
    mesh = read_surface(path)
    for file in find_surface_files(path):
        if file.resolve().parent != path.parent.resolve():
            raise AssertionError(f"{file} is outside")
    return mesh


def _depth_image(path: Path) -> object:
    return read_depth_image(path, PinholeCamera(37.5, 37.5, 4, 5))


def _grid(path: Path) -> object:
    """As the data set's reader does it: the error of the second step gets the file's name."""
    grid = read_bnt(path)
    try:
        return bnt_to_mesh(grid)
    except ScanError as error:
        raise ScanError(f"{path}: {error}") from error


def _mtl_user(path: Path) -> object:
    return _surface(path.with_name("face.obj"))


def _clips(path: Path) -> object:
    rows = read_label_sheet(path, COLUMNS)
    return parse_clips(path, rows) if rows is not None else None


def _codes(path: Path) -> object:
    for units in (codes := read_facscodes(path)).units.values():
        assert len(encode_units(units, complete=True)) in (0, len(AU_NAMES))
    return codes


def _manifest(path: Path) -> object:
    records = FOLDER.find(path).records
    for record in records[:5]:
        FOLDER.source_files(path, record)
        try:
            FOLDER.read(path, record)
        except ScanError:  # its files are not there
            continue
    return records


def _write_obj_first(target: Target) -> Target:
    def prepare(rng: random.Random, case: int, folder: Path) -> Path:
        path = target.prepare(rng, case, folder)
        (folder / "face.obj").write_bytes(corpus.obj_of_parts() if case % 2 else corpus.obj())
        return path

    def warm_up(folder: Path) -> None:
        write_surroundings(folder)
        (folder / "face.obj").write_bytes(corpus.obj())
        target.warm_up(folder)

    return Target(target.name, target.share, prepare, target.read, warm_up=warm_up)


def file_targets() -> list[Target]:
    """Every format, read from one damaged file."""
    header = b"ply\nformat ascii 1.0\nelement vertex 1000000000\nproperty float x\nproperty float y\nproperty float z\n"
    jpeg = corpus.image("JPEG")
    sof = jpeg.index(b"\xff\xc0") + 5
    huge_jpeg = jpeg[:sof] + b"\xff\xff\xff\xff" + jpeg[sof + 4 :]
    large_jpeg = jpeg[:sof] + b"\x1f\xff\x1f\xff" + jpeg[sof + 4 :]
    bmp = bytearray(corpus.image("BMP"))
    bmp[18:26] = np.array([8000, 8000], "<i4").tobytes()
    sheet = corpus.label_sheet()
    images = [
        ("face.png", corpus.image("PNG")),
        ("face.png", corpus.image("PNG", "P")),
        ("face.jpg", jpeg),
        ("face.bmp", corpus.image("BMP")),
        ("face.tif", corpus.image("TIFF")),
        ("face.tif", corpus.image("TIFF", compression="tiff_lzw")),
        ("face.webp", corpus.image("WEBP")),
        ("face.tga", corpus.image("TGA")),
        ("face.tga", corpus.image("TGA", compression="tga_rle")),
        ("face.png", corpus.image("PNG", "RGBA")),
        ("face.jpg", corpus.image("JPEG", progressive=True)),
    ]
    return [
        _file(
            "WRL",
            20,
            [
                ("a.wrl", corpus.wrl("bu3dfe")),
                ("a.wrl", corpus.wrl("bu4dfe")),
                ("a.wrl", corpus.wrl_with_colors()),
            ],
            _surface,
            mutations.mutate_text,
        ),
        _file(
            "OBJ",
            20,
            [
                ("a.obj", corpus.obj()),
                ("a.obj", corpus.obj(slashes=False)),
                ("a.obj", corpus.obj_with_quads()),
                ("a.obj", corpus.obj_of_parts()),
            ],
            _surface,
            mutations.mutate_text,
        ),
        _write_obj_first(
            _file(
                "MTL",
                4,
                [("face.mtl", corpus.MTL), ("face.mtl", corpus.MTL_OF_OPTIONS)],
                _mtl_user,
                mutations.mutate_text,
            )
        ),
        _file(
            "PLY",
            14,
            [
                ("a.ply", corpus.ply_text()),
                ("a.ply", corpus.ply_binary()),
                ("a.ply", corpus.ply_binary(">")),
                ("a.ply", corpus.ply_of_parts()),
            ],
            _surface,
            mutations.mutate_either,
            as_they_are=[
                (
                    "a.ply",
                    header + b"element face 1\nproperty list uchar int vertex_index\nend_header\n0 0 0\n3 0 0 0\n",
                ),
                ("a.ply", header.replace(b"ascii", b"binary_little_endian") + b"end_header\n" + bytes(100)),
            ],
        ),
        _file("OFF", 8, [("a.off", corpus.off()), ("a.off", corpus.off_of_parts())], _surface, mutations.mutate_text),
        _file(
            "STL",
            6,
            [("a.stl", corpus.stl_binary()), ("a.stl", corpus.stl_text()), ("a.stl", corpus.stl_colored())],
            _surface,
            mutations.mutate_either,
        ),
        _file(
            "GLB",
            12,
            [
                ("a.glb", corpus.glb()),
                ("a.glb", corpus.glb(index_type="<u4", with_colors=True)),
                ("a.glb", corpus.glb(index_type="<u1")),
                ("a.glb", corpus.glb_of_everything()),
                ("a.glb", corpus.glb_of_everything(glossy=True)),
            ],
            _surface,
            containers.mutate_glb,
        ),
        _file("BNT", 10, [("a.bnt", corpus.bnt())], _grid, mutations.mutate_binary),
        _file("ABS", 6, [("a.abs", corpus.range_text())], _surface, mutations.mutate_text),
        _file("ABS, packed", 2, [("a.abs.gz", gzip.compress(corpus.range_text()))], _surface, mutations.mutate_binary),
        _file("depth image", 3, [("a.png", corpus.depth_image())], _depth_image, mutations.mutate_binary),
        _file("camera", 3, [("camera.json", corpus.camera())], read_camera, containers.mutate_json),
        _file(
            "bnd and pse",
            5,
            [("a.bnd", corpus.bnd()), ("a.pse", corpus.pse())],
            lambda path: read_bnd(path) if path.suffix == ".bnd" else read_pse(path),
            mutations.mutate_text,
        ),
        _file("facscodes", 4, [("a.lst", corpus.facscodes())], _codes, mutations.mutate_text),
        _file("tbnd", 4, [("a.tbnd", corpus.tbnd())], read_tbnd, mutations.mutate_text),
        _file(
            "lm3",
            5,
            [
                ("a.lm3", corpus.lm3()),
                ("a.lm3", corpus.lm3("\r\n").replace(b"\r\n\r\n", b"\r\n*\r\nfree text\r\n\r\n", 1)),
            ],
            read_lm3,
            mutations.mutate_text,
        ),
        _file("ljson", 3, [("a.ljson", corpus.ljson())], read_face_points, containers.mutate_json),
        _file(
            "named points",
            2,
            [("a.csv", corpus.named_points()), ("a.txt", corpus.named_points())],
            read_face_points,
            mutations.mutate_text,
        ),
        _file(
            "AU occurrence",
            4,
            [("a.csv", corpus.au_occurrence()), ("a.csv", corpus.au_named())],
            lambda path: read_au_occurrence(path, (1, 12, 99)),
            mutations.mutate_text,
        ),
        _file("AU intensity", 4, [("a.csv", corpus.au_intensity())], read_au_intensity, mutations.mutate_text),
        _file(
            "XLSX",
            2.5,
            [("a.xlsx", sheet)],
            _clips,
            containers.mutate_xlsx,
            as_they_are=[
                ("a.xlsx", containers.xlsx_bomb(1 << 29)),
                ("a.xlsx", containers.xlsx_bomb(1 << 29, lie=True)),
                ("a.xlsx", containers.xlsx_bomb(100 << 20)),
            ],
        ),
        _own(
            "manifest",
            8,
            [("manifest.csv", corpus.manifest())],
            _manifest,
            mutations.mutate_table,
            as_they_are=[
                ("manifest.csv", b"path,subject,label\n" + b"a" * 300 + b".obj,A,anger\n"),
                ("manifest.csv", b"path,subject,label\n" + b"a/" * 3000 + b"a.obj,A,anger\n"),
            ],
        ),
        _file(
            "label map",
            4,
            [("map.csv", corpus.label_map())],
            lambda path: unify_labels(["joy", "Joy", "Agry", "n/a", ""], read_label_map(path)),
            mutations.mutate_table,
        ),
        _file(
            "groups",
            4,
            [("groups.csv", corpus.groups())],
            lambda path: part_columns(read_groups(path, ["a", "b"]), [0, 1]),
            mutations.mutate_table,
        ),
        _file(
            "images",
            9,
            images,
            read_image,
            lambda rng, data: containers.mutate_png(rng, data),
            as_they_are=[
                ("face.png", containers.png_bomb(60_000, 60_000, full=False)),
                ("face.png", containers.png_bomb(8192, 8192, mode=6)),
                ("face.png", containers.png_bomb(2**31 - 1, 2**31 - 1, full=False)),
                ("face.png", containers.png_bomb(1 << 26, 1)),
                ("face.jpg", huge_jpeg),
                ("face.jpg", large_jpeg),
                ("face.bmp", bytes(bmp)),
                ("face.png", b""),
                ("face.png", bytes(9)),
            ],
        ),
    ]
