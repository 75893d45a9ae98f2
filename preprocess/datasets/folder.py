"""Your own scans: a folder of meshes and a CSV manifest that says who they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.datasets.completeness import describe_gaps, describe_lacking
from preprocess.datasets.folder_notes import describe_doubts
from preprocess.datasets.label_spelling import LabelMap, describe_values, read_label_map, unify_labels, unify_values
from preprocess.datasets.manifest import (
    ManifestRow,
    default_id,
    find_manifest,
    match_manifest,
    parse_columns,
    parse_scan_pattern,
    read_manifest,
)
from preprocess.datasets.manifest_fields import UNITS_MM, read_level
from preprocess.datasets.path_pattern import PathPattern
from preprocess.datasets.scan import MOMENTS, DatasetOption, DatasetReader, Listing, Moments, ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.readers.depth_image import CAMERA_FIELDS, DEPTH_SUFFIXES, make_camera, read_camera, read_depth_image
from preprocess.readers.landmark_points import FACE_POINTS, read_face_points
from preprocess.readers.references import list_names, plain_name
from preprocess.readers.surface import find_surface_files, read_surface, scan_suffix
from shared.errors import FacetError, ScanError, name_some
from shared.sequences import frame_number

_UNIFIED = ("intensity", "task")  # columns of few words, in which a spelling is no other word
_OPTIONS = ("units", "scale", "up", "facing", "texture_origin", "camera", *CAMERA_FIELDS, "max_depth_mm")


def find_folder(
    root: Path,
    *,
    label_map: LabelMap | None = None,
    pattern: PathPattern | None = None,
    manifest: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Listing:
    """List the rows of the manifest in its order; frames of one sequence together, by their number.

    The notes name merged spellings, missing files and unlabelled scans.

    Args:
        root: a folder with manifest.csv, or the manifest itself.
        label_map: see unify_labels.
        pattern: lists the files of these names instead of a manifest's.
        manifest: a manifest elsewhere, whose paths are relative to the root.
        columns: values for all rows that leave these columns empty.
    Raises:
        FacetError: no manifest, or one that cannot be used; names the line.
    """
    columns = columns or {}
    if pattern is not None:
        if manifest is not None:
            raise FacetError("--pattern and --manifest both list the scans; give one of them")
        listed = match_manifest(root, pattern, columns)
    elif manifest is not None:
        listed = read_manifest(manifest, root, columns)
    else:
        listed = read_manifest(find_manifest(root), None, columns)
    rows = listed.rows
    spelling = unify_labels([row["label"] for row in rows], label_map)
    classes = spelling.classes | {"": ""}
    unified = (*_UNIFIED, *listed.group_names)
    values = {name: unify_values([row[name] for row in rows]) | {"": ""} for name in unified}
    names = FileNames(listed.folder)
    seen: dict[str, str] = {}
    sequences: dict[str, list[ScanRecord]] = {}  # a scan that is no frame stands alone, under its place
    numbered: dict[str, list[tuple[str, bool]]] = {}  # where each stands, and whether it has a frame number
    for row in rows:
        sample_id = row["sample_id"] or default_id(row["path"])
        if sample_id in seen:
            raise FacetError(
                f"{listed.name}: {seen[sample_id]} and {row.place} are both called {sample_id[:80]!r}; "
                "tell them apart in a column sample_id"
                + ("" if pattern is None else ", or end the pattern with one file format")
            )
        seen[sample_id] = row.place
        key = f"sequence {row['sequence']}" if row["sequence"] else row.place
        frames = sequences.setdefault(key, [])
        numbered.setdefault(key, []).append((row.place, bool(row["frame"])))
        words = {name: values[name][row[name]] for name in unified}
        record = replace(
            build_record(row, names, frame=len(frames)),
            sample_id=sample_id,
            label=classes[row["label"]],
            intensity=words["intensity"],
            task=words["task"],
            groups=tuple((name, words[name]) for name in listed.group_names),
            aus=_read_units(listed.name, row, listed.au_names),
        )
        if frames and frames[0].subject != record.subject:
            raise FacetError(
                f"{listed.name}, {row.place}: sequence {record.sequence[:40]!r} shows {record.subject[:40]} and "
                f"{frames[0].subject[:40]}; give each its own sequence"
            )
        if frames and frames[0].label != record.label:  # it is one sample: its frames have one label
            raise FacetError(
                f"{listed.name}, {row.place}: sequence {record.sequence[:40]!r} is labelled {record.label[:40]!r} and "
                f"{frames[0].label[:40]!r}; give all its frames one label, or make it two sequences"
            )
        frames.append(record)
    for key, frames in sequences.items():
        if partly := [place for place, is_given in numbered[key] if is_given != numbered[key][0][1]]:
            raise FacetError(
                f"{listed.name}, {partly[0]}: {key[:80]} has frames with a number and frames without; number all of them in a "
                "column frame, or none, where they stand in their order"
            )
        if len({record.frame for record in frames}) != len(frames):
            raise FacetError(f"{listed.name}: {key[:80]} has two frames of one number; number them in a column frame")
        frames.sort(key=frame_number)
        if frames[0].sequence:
            moments = _find_moments(f"{listed.name}: {key[:80]}", frames)
            frames[:] = [replace(record, moments=moments) for record in frames]
    records = [record for frames in sequences.values() for record in frames]
    names_of_sequences = {record.sequence for record in records}
    if both := [one.sample_id for one in records if not one.sequence and one.sample_id in names_of_sequences]:
        raise FacetError(
            f"{listed.name}: a sequence and a scan of no sequence are both called {both[0][:80]!r}, and so would their "
            "predictions be; give one another name (column sequence or sample_id)"
        )
    missing = {record.sample_id for record in records if not _is_file(listed.folder / record.source)}
    lines = [
        *listed.notes,
        *([f"action units: {name_some(listed.au_names)}"] if listed.au_names else []),
        *([f"columns kept as groups: {name_some(listed.group_names)}"] if listed.group_names else []),
        *(line for name in unified for line in describe_values(name, [row[name] for row in rows])),
        *spelling.notes,
        *describe_doubts(rows, records, listed.au_names),
        *describe_lacking(records, "mesh files", lambda record: record.sample_id in missing),
        *describe_lacking(records, "labels", lambda record: not record.label),
        *describe_gaps(records),
    ]
    return Listing(records, lines, listed.au_names)


def _find_moments(where: str, frames: Sequence[ScanRecord]) -> Moments:
    """Return onset, apex and offset of a sequence, as its rows give them; frames: in time order.

    Raises:
        FacetError: rows that differ, or moments that are not in this order among the frames.
    """
    given = [
        {moment for moment in column if moment is not None} for column in zip(*(f.moments for f in frames), strict=True)
    ]
    if several := [name for name, found in zip(MOMENTS, given, strict=True) if len(found) > 1]:
        raise FacetError(f"{where} has more than one {several[0]}; give all its rows the same, or leave others empty")
    onset, apex, offset = (next(iter(found), None) for found in given)
    known = {name: one for name, one in zip(MOMENTS, (onset, apex, offset), strict=True) if one is not None}
    first, last = frame_number(frames[0]), frame_number(frames[-1])
    if [first, *known.values(), last] != sorted([first, *known.values(), last]):
        raise FacetError(
            f"{where} has {', '.join(f'{name} {number}' for name, number in known.items())}; expected numbers of its frames, "
            f"{first} to {last}, in this order"
        )
    return onset, apex, offset


def _read_units(manifest: str, row: ManifestRow, names: Sequence[str]) -> tuple[int, ...]:
    """Return a row's value of each action unit, -1 = not known; () if none is known."""
    values = tuple(read_level(row[name], name, f"{manifest}, {row.place}") for name in names)
    return values if any(value >= 0 for value in values) else ()


def build_record(row: ManifestRow, names: FileNames, *, frame: int) -> ScanRecord:
    """Return the scan of a row, without name, label and groups; frame: its number in a sequence where the row has none."""
    return ScanRecord(
        sample_id="",
        subject=row["subject"],
        source=names.find(row["path"]),
        sequence=row["sequence"],
        frame=int(row["frame"]) if row["frame"] else frame if row["sequence"] else None,
        texture=names.find(row["texture"]),
        landmarks=names.find(row["landmarks"]),
        options=tuple((name, row[name]) for name in _OPTIONS if row[name]),
        moments=(_number(row["onset"]), _number(row["apex"]), _number(row["offset"])),
    )


def _number(text: str) -> int | None:
    return int(text) if text else None


class FileNames:
    """Find files by the manifest's names. If there is no such name, take the only one that differs in case or Unicode form.

    A manifest may come from a system that does not tell james.OBJ from james.obj, or one that stores an umlaut as two
    characters.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._folders: dict[str, dict[str, list[str]]] = {}  # plain name → names, of each folder, listed once

    def find(self, name: str) -> str:
        found = ""
        for part in name.split("/"):
            found = self._find(found, part)
        return found

    def _find(self, folder: str, last: str) -> str:
        if folder not in self._folders:
            try:
                self._folders[folder] = list_names(self._base / folder)
            except OSError:  # no such folder
                self._folders[folder] = {}
        alike = self._folders[folder].get(plain_name(last), [])
        found = alike[0] if len(alike) == 1 else last
        return f"{folder}/{found}" if folder else found


def read_folder_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads a row's mesh, scaled to mm; its texture and landmarks where the row names some.

    Without units and scale, a GLB is in metres and any other file in mm. Without texture_origin, v = 0 is the top of the
    image in a GLB and the bottom in any other file (glTF 2.0, sections 3.4 and 3.8.3).

    Raises:
        ScanError: a file of the row is missing or cannot be read.
    """
    base = root.parent if root.is_file() else root
    path = base / record.source
    options = dict(record.options)
    texture = base / record.texture if record.texture else None
    try:
        if scan_suffix(record.source) in DEPTH_SUFFIXES:
            camera = read_camera(base / options["camera"]) if "camera" in options else make_camera(options)
            limit = float(options["max_depth_mm"]) if "max_depth_mm" in options else None
            mesh = read_depth_image(path, camera, max_depth_mm=limit, texture=texture)
        else:
            mesh = read_surface(path, texture=texture)
    except ScanError as error:
        if _is_file(path):
            raise
        raise ScanError(f"{error}, or take its line out of the manifest") from error
    if record.texture and mesh.uv is None:
        raise ScanError(f"{path}: has no texture coordinates to place {record.texture} with; leave its texture empty")
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
        points, unused = read_face_points(base / record.landmarks)
        landmarks_mm, notes = points * to_mm, (*notes, *unused)
    try:
        return replace(mesh, vertices_mm=vertices_mm, uv=uv, landmarks_mm=landmarks_mm, notes=notes)
    except ScanError as error:
        raise ScanError(f"{path}: {error}; check its scale") from error


def find_folder_files(root: Path, record: ScanRecord) -> list[Path]:
    """Return a row's mesh and the files it uses; missing or broken files are listed as far as they are known."""
    base = root.parent if root.is_file() else root
    named = (record.texture, record.landmarks, dict(record.options).get("camera"))
    return find_surface_files(base / record.source) + [base / name for name in named if name]


def parse_label_map(text: str) -> LabelMap:
    return read_label_map(Path(text))


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
    options=(
        DatasetOption(
            "--label-map",
            "FILE.csv",
            "lines word,class such as joy,happiness; an empty class means no label (default: happy, Joy … are happiness)",
            parse_label_map,
            "label_map",
        ),
        DatasetOption(
            "--pattern",
            "TEXT",
            "list files by their names instead of a manifest, such as {subject}/{label}/{frame}.ply; {} or *: anything",
            parse_scan_pattern,
            "pattern",
        ),
        DatasetOption(
            "--manifest", "FILE.csv", "a manifest outside --root; its paths are relative to --root", Path, "manifest"
        ),
        DatasetOption(
            "--columns",
            "LIST",
            "COLUMN=VALUE for all rows that leave it empty, such as units=m",
            parse_columns,
            "columns",
        ),
    ),
)
