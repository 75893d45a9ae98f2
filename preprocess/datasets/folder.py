"""Your own scans: a folder of meshes and a CSV manifest that says who they show."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.datasets.completeness import describe_gaps, describe_lacking
from preprocess.datasets.label_spelling import (
    NOT_KNOWN,
    LabelMap,
    describe_values,
    read_label_map,
    unify_labels,
    unify_values,
)
from preprocess.datasets.manifest import (
    UNITS_MM,
    ManifestRow,
    default_id,
    find_manifest,
    match_manifest,
    parse_columns,
    parse_scan_pattern,
    read_level,
    read_manifest,
)
from preprocess.datasets.path_pattern import PathPattern
from preprocess.datasets.scan import MOMENTS, DatasetOption, DatasetReader, Listing, Moments, ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.readers.depth_image import CAMERA_FIELDS, DEPTH_SUFFIXES, make_camera, read_camera, read_depth_image
from preprocess.readers.landmark_points import FACE_POINTS, read_face_points
from preprocess.readers.references import list_names, plain_name
from preprocess.readers.surface import find_surface_files, read_surface, scan_suffix
from shared.errors import FacetError, ScanError, name_some
from shared.labels import plain_subject, plain_word
from shared.pairs import group_pairs
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
    if pattern is not None:
        if manifest is not None:
            raise FacetError("--pattern and --manifest both list the scans; give one of them")
        listed = match_manifest(root, pattern, columns or {})
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
    missing = {record.sample_id for record in records if not _is_file(listed.folder / record.source)}
    lines = [
        *listed.notes,
        *([f"action units: {name_some(listed.au_names)}"] if listed.au_names else []),
        *([f"columns kept as groups: {name_some(listed.group_names)}"] if listed.group_names else []),
        *(line for name in unified for line in describe_values(name, [row[name] for row in rows])),
        *spelling.notes,
        *_describe_names(records),
        *_describe_renamed(rows, records),
        *_describe_scattered(records),
        *_describe_changing(records),
        *_describe_units(records, listed.au_names),
        *_describe_loose(records),
        *_describe_repeated(records),
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
        if not name:
            return name
        *folders, last = name.split("/")
        folder = ""
        for part in folders:
            folder = self._find(folder, part)
        return self._find(folder, last)

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


def _describe_names(records: Sequence[ScanRecord]) -> list[str]:
    """Describe names that may mean one person, who would then be in training and in test, or one sequence of a person; and
    words for "not known" that are taken as a person."""
    subjects = dict.fromkeys(("", record.subject) for record in records)
    sequences = dict.fromkeys((record.subject, record.sequence) for record in records if record.sequence)
    notes = []
    for what, names in (("subjects", subjects), ("sequences of one subject", sequences)):
        alike = group_pairs(((whose, plain_subject(name)), name) for whose, name in names)
        if pairs := [" and ".join(sorted(several)) for several in alike.values() if len(several) > 1]:
            notes.append(f"{what} that are perhaps one, spelled in two ways: {name_some(pairs)}; spell them alike")
    if unknown := [name for _, name in subjects if plain_word(name) in NOT_KNOWN]:
        notes.append(
            f"subjects whose name means that they are not known: {name_some(unknown)}; each is taken as one person"
        )
    return notes


def _describe_scattered(records: Sequence[ScanRecord]) -> list[str]:
    """Describe subjects whose own folders lie in several places, where two studies may each have an S01."""
    folders: dict[str, set[str]] = {}
    for record in records:
        parts = PurePosixPath(record.source).parts[:-1]
        if record.subject in parts:
            folders.setdefault(record.subject, set()).add("/".join(parts[: parts.index(record.subject) + 1]))
    shown = [f"{name} ({', '.join(sorted(places)[:3])})" for name, places in folders.items() if len(places) > 1]
    return [f"subjects with several folders, each taken as one person: {name_some(shown)}"] if shown else []


def _describe_changing(records: Sequence[ScanRecord]) -> list[str]:
    """Describe subjects whose group changes, such as their sex, where that of most does not."""
    groups: dict[str, dict[str, set[str]]] = {}
    for record in records:
        for column, value in record.groups:
            groups.setdefault(column, {}).setdefault(record.subject, set()).update([value] * bool(value))
    notes = []
    for column, values in groups.items():
        odd = [f"{subject} ({', '.join(sorted(found))})" for subject, found in values.items() if len(found) > 1]
        if odd and 2 * len(odd) < len(values):
            notes.append(f"column {column}: other values in some rows of a subject: {name_some(odd)}")
    return notes


def _describe_units(records: Sequence[ScanRecord], names: Sequence[str]) -> list[str]:
    """Describe action units that are coded as absent and with an intensity, or as present and with the intensity 0."""
    odd = {
        name: [r.sample_id for r in records if r.aus and min(one := (r.aus[k], r.aus[i])) == 0 and max(one) > 0]
        for k, name in enumerate(names)
        if (i := names.index(graded) if (graded := f"{name}_intensity") in names else -1) >= 0
    }
    shown = [f"{name} ({', '.join(ids[:2])}{', …' * (len(ids) > 2)})" for name, ids in odd.items() if ids]
    return [f"action units with and without an intensity at once: {name_some(shown)}"] if shown else []


def _describe_loose(records: Sequence[ScanRecord]) -> list[str]:
    """Describe frame numbers without a sequence."""
    num = sum((record.frame, *record.moments) != (None,) * 4 and not record.sequence for record in records)
    what = "scans have a frame number and no sequence, and count as single scans; 4D needs a column sequence"
    return [f"{num:,} {what}"] if num else []


def _describe_repeated(records: Sequence[ScanRecord]) -> list[str]:
    """Describe meshes that several rows name, and images and landmarks that rows of several people name: perhaps lines that
    were copied and not changed."""
    notes = []
    for column, what in (
        ("source", "files in several rows"),
        ("texture", "textures of several people"),
        ("landmarks", "landmarks of several people"),
    ):
        rows = group_pairs((str(getattr(record, column)), record) for record in records)
        shown = [
            f"{name} ({', '.join(dict.fromkeys(f'{one.subject} {one.label}'.strip() for one in same))})"
            for name, same in rows.items()
            if name and len(same if column == "source" else {one.subject for one in same}) > 1
        ]
        notes += [f"{what}: {name_some(shown)}"] if shown else []
    return notes


def _describe_renamed(rows: Sequence[ManifestRow], records: Sequence[ScanRecord]) -> list[str]:
    """Describe files whose names differ in case from the manifest's."""
    found = {name for record in records for name in (record.source, record.texture, record.landmarks)}
    plain = {plain_name(name): name for name in found}
    named = {row[column] for row in rows for column in ("path", "texture", "landmarks")} - found
    pairs = [(name, plain[plain_name(name)]) for name in sorted(named) if plain_name(name) in plain]
    shown = [
        f"{one} is {other}"
        for one, other in pairs
        if unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", other)
    ]
    return [f"files in another case than in the manifest: {name_some(shown)}"] if shown else []


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
