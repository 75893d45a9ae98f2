"""Your own scans: a folder of meshes and a CSV manifest that says who they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.datasets.completeness import describe_gaps, describe_lacking
from preprocess.datasets.manifest import UNITS_MM, ManifestRow, find_manifest, read_manifest
from preprocess.mesh import Mesh
from preprocess.readers.landmark_points import FACE_POINTS, read_noted_face_points
from preprocess.readers.surface import find_surface_files, read_surface
from preprocess.scan import DatasetReader, ScanRecord
from shared.errors import FacetError, ScanError

_OPTIONS = ("units", "scale", "up", "facing", "texture_origin")


def find_folder(root: Path) -> list[ScanRecord]:
    """The rows of the manifest in its order; frames of one sequence together, by their number.

    Args:
        root: a folder with manifest.csv, or the manifest itself.
    Raises:
        FacetError: no manifest, or one that cannot be used; names the line.
    """
    manifest = find_manifest(root)
    seen: dict[str, int] = {}
    sequences: dict[str, list[ScanRecord]] = {}  # a scan that is no frame stands alone, under its line's number
    for row in read_manifest(manifest):
        sample_id = row["sample_id"] or PurePosixPath(row["path"]).with_suffix("").as_posix()
        if sample_id in seen:
            raise FacetError(
                f"{manifest}: lines {seen[sample_id]} and {row.line} are both called {sample_id[:80]!r}; "
                "tell them apart in a column sample_id"
            )
        seen[sample_id] = row.line
        key = f"sequence {row['sequence']}" if row["sequence"] else f"line {row.line}"
        frames = sequences.setdefault(key, [])
        record = _build_record(row, sample_id, frame=len(frames))
        if frames and frames[0].subject != record.subject:
            raise FacetError(
                f"{manifest}, line {row.line}: sequence {record.sequence[:40]!r} shows {record.subject[:40]} and "
                f"{frames[0].subject[:40]}; give each its own sequence"
            )
        if frames and frames[0].label != record.label:  # it is one sample: its frames have one label
            raise FacetError(
                f"{manifest}, line {row.line}: sequence {record.sequence[:40]!r} is labelled {record.label[:40]!r} and "
                f"{frames[0].label[:40]!r}; give all its frames one label, or make it two sequences"
            )
        frames.append(record)
    for key, frames in sequences.items():
        if len({record.frame for record in frames}) != len(frames):
            raise FacetError(f"{manifest}: {key[:80]} has two frames of one number; number them in a column frame")
        frames.sort(key=lambda record: record.frame or 0)
    return [record for frames in sequences.values() for record in frames]


def _build_record(row: ManifestRow, sample_id: str, *, frame: int) -> ScanRecord:
    return ScanRecord(
        sample_id=sample_id,
        subject=row["subject"],
        source=row["path"],
        label=row["label"],
        sequence=row["sequence"],
        frame=int(row["frame"]) if row["frame"] else frame if row["sequence"] else None,
        intensity=row["intensity"],
        task=row["task"],
        texture=row["texture"],
        landmarks=row["landmarks"],
        options=tuple((name, row[name]) for name in _OPTIONS if row[name]),
    )


def read_folder_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads a row's mesh, scaled to mm; its texture and landmarks where the row names some.

    Without units and scale, a GLB is in metres and any other file in mm. Without texture_origin, v = 0 is the top of the
    image in a GLB and the bottom in any other file (glTF 2.0, sections 3.4 and 3.8.3).

    Raises:
        ScanError: a file of the row is missing or cannot be read.
    """
    base = root.parent if root.is_file() else root
    path = base / record.source
    mesh = read_surface(path, texture=base / record.texture if record.texture else None)
    if record.texture and mesh.uv is None:
        raise ScanError(f"{path}: has no texture coordinates to place {record.texture} with; leave its texture empty")
    options = dict(record.options)
    is_glb = path.suffix.lower() == ".glb"
    usual_origin = "top" if is_glb else "bottom"
    uv = mesh.uv
    if uv is not None and options.get("texture_origin", usual_origin) != usual_origin:
        uv = np.stack([uv[..., 0], 1 - uv[..., 1]], axis=-1)
    units = options.get("units") or ("m" if is_glb else "mm")
    to_mm = np.float32(options["scale"]) if "scale" in options else np.float32(UNITS_MM[units])
    with np.errstate(over="ignore"):
        vertices_mm = mesh.vertices_mm * to_mm
    landmarks_mm, notes = None, mesh.notes
    if record.landmarks:  # in the units of the mesh
        points, unused = read_noted_face_points(base / record.landmarks)
        landmarks_mm, notes = points * to_mm, (*notes, *unused)
    try:
        return replace(mesh, vertices_mm=vertices_mm, uv=uv, landmarks_mm=landmarks_mm, notes=notes)
    except ScanError as error:
        raise ScanError(f"{path}: {error}; check its scale") from error


def find_folder_files(root: Path, record: ScanRecord) -> list[Path]:
    """The row's mesh and what it draws on; files that are missing or broken are listed as far as they are known."""
    base = root.parent if root.is_file() else root
    return find_surface_files(base / record.source) + [
        base / name for name in (record.texture, record.landmarks) if name
    ]


def summarise_folder(root: Path, records: Sequence[ScanRecord]) -> list[str]:
    """What the manifest names and is not there, and what it leaves unlabelled."""
    base = root.parent if root.is_file() else root
    missing = {record.sample_id for record in records if not _is_file(base / record.source)}
    return [
        *describe_lacking(records, "their mesh file", lambda record: record.sample_id in missing),
        *describe_lacking(records, "labels", lambda record: not record.label),
        *describe_gaps(records),
    ]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that the file system cannot hold
        return False


FOLDER = DatasetReader(
    name="folder",
    title="Your own scans",
    licence="Your own scans: show these faces only as the people shown have agreed to",
    class_names=(),  # the labels found in the manifest
    find=find_folder,
    read=read_folder_scan,
    source_files=find_folder_files,
    num_landmarks=len(FACE_POINTS),
    landmark_groups={name: (i,) for i, name in enumerate(FACE_POINTS)},
    summarise=summarise_folder,
)
