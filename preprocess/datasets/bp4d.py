"""BP4D-Spontaneous: 41 subjects, eight tasks each, 328 sequences of 368,036 frames at 25 frames per second.

Zhang et al. 2014, "BP4D-Spontaneous: a high-resolution spontaneous 3D dynamic facial expression database"; layout after the
data set's user guide.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.datasets.bp4d_action_units import AU_NAMES, describe_uncoded, read_action_units
from preprocess.datasets.bp4d_axes import MAX_SURFACE_DISTANCE_MM, find_axis_signs, surface_distance_mm
from preprocess.datasets.bp4d_folders import (
    TASK,
    find_au_files,
    find_bp4d_subjects,
    find_feature_folders,
    is_named_as_plus,
)
from preprocess.datasets.completeness import (
    OWN_PICTURES,
    describe_counts,
    describe_gaps,
    describe_lacking,
    describe_missing,
    name_some,
)
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord
from preprocess.datasets.subject_folders import describe_archives, find_texture, list_files, list_names, subfolders
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bu_landmarks import BP4D_LANDMARK_GROUPS, NUM_BU_LANDMARKS, read_tbnd
from preprocess.readers.file_bytes import is_blank
from preprocess.readers.obj import read_obj
from shared.errors import ScanError
from shared.labels import BP4D_EMOTIONS, BP4D_TASKS

AXES_OPTION = "landmark_axes"  # a record's option: the signs of the landmarks' axes on the scan, "+x +y -z"
_PROBED_SCANS, _PROBE_TRIES = 3, 9


def find_bp4d(root: Path) -> Listing:
    """List every frame, by subject, task and number, with its action units.

    The landmarks are left-handed, and the guide does not say which axis is mirrored. A few scans are read to find the signs
    that put the landmarks on the surface; the records name these. If no signs do, no landmarks are listed.

    Raises:
        FacetError: the root holds no BP4D, or BP4D+.
    """
    subjects = find_bp4d_subjects(root)
    features = find_feature_folders(root, subjects.base)
    occurrence, intensity = find_au_files(root, subjects.base)
    sequences = [
        _list_sequence(root, subject, f"T{match[1]}", folder, features)
        for subject, subject_folder in subjects.folders.items()
        for folder in subfolders(subject_folder)
        if (match := TASK.fullmatch(folder.name))
    ]
    probe = _probe_axes(root, sequences)
    records: list[ScanRecord] = []
    for frames in sequences:
        numbers = [record.frame or 0 for record in frames]
        units = read_action_units(frames[0].sequence, numbers, occurrence, intensity)[0] if frames else []
        for record, values in zip(frames, units, strict=True):
            use = bool(probe.axes and record.landmarks)
            options = ((AXES_OPTION, probe.axes),) if use else ()
            records.append(replace(record, landmarks=record.landmarks if use else "", options=options, aus=values))
    lines = [
        *describe_counts(records, subjects=41, sequences=328, scans=368_036),
        *describe_missing(records),
        *describe_gaps(records),
        *describe_lacking(records, OWN_PICTURES, lambda record: not record.texture, unit="frames"),
        *_describe_landmarks(records, probe, sum(bool(record.landmarks) for frames in sequences for record in frames)),
        *describe_uncoded(records, occurrence, intensity),
    ]
    if is_named_as_plus(subjects.base):
        lines.append(
            f"{subjects.base.name}: BP4D+ names its folder so; should these be BP4D+'s scans, the labels of T2 to T8 are wrong"
        )
    return Listing(records, lines + describe_archives(root, subjects))


def _list_sequence(root: Path, subject: str, task: str, folder: Path, features: list[Path]) -> list[ScanRecord]:
    """List a sequence by the names of its files alone: there are a million of them. Names have three or four digits."""
    landmarks = _list_landmarks(root, subject, task, features)
    files = list_files(root, folder)
    frames: dict[int, ScanRecord] = {}
    for name, path in files.items():
        stem = name[:-4]
        if not name.endswith(".OBJ") or not stem.isdecimal() or not stem.isascii() or int(stem) in frames:
            continue
        frames[int(stem)] = ScanRecord(
            sample_id=f"{subject}/{task}/{PurePosixPath(path).stem}",
            subject=subject,
            source=path,
            label=BP4D_TASKS[task],
            sequence=f"{subject}/{task}",
            frame=int(stem),
            task=task,
            texture=find_texture(files, stem),
            landmarks=landmarks.get(int(stem), ""),
            groups=(("sex", subject[0]),),
        )
    return [frames[number] for number in sorted(frames)]


def _list_landmarks(root: Path, subject: str, task: str, features: list[Path]) -> dict[int, str]:
    """Return frame number → landmark file, from the first features folder that has the sequence."""
    for feature_folder in features:
        for subject_folder in subfolders(feature_folder):
            if subject_folder.name.upper() != subject:
                continue
            for folder in subfolders(subject_folder):
                match = TASK.fullmatch(folder.name)
                if match is None or f"T{match[1]}" != task:
                    continue
                prefix = Path(os.path.relpath(folder.resolve(), root.resolve())).as_posix()
                stems = [(name[:-5], name) for name in list_names(folder) if name.lower().endswith(".tbnd")]
                return {int(s): f"{prefix}/{name}" for s, name in stems if s.isdecimal() and s.isascii()}
    return {}


@dataclass(frozen=True, slots=True)
class _Probe:
    """axes: the signs of the landmarks' axes, as `+x +y -z`; empty where none fit. tried: landmark files that were held against
    their scan. errors: why others, or their scans, could not be read."""

    axes: str
    tried: list[str]
    errors: list[str]


def _probe_axes(root: Path, sequences: list[list[ScanRecord]]) -> _Probe:
    """Try up to three scans, of different subjects if possible."""
    with_landmarks = [first for frames in sequences if (first := next((r for r in frames if r.landmarks), None))]
    candidates = {record.subject: record for record in reversed(with_landmarks)}  # the first of each subject
    firsts = [record for record in with_landmarks if candidates[record.subject] is record]
    spare = [record for record in with_landmarks if candidates[record.subject] is not record]
    scans, tried, errors = [], [], []
    for frame in [*firsts, *spare][:_PROBE_TRIES]:
        try:
            points = read_tbnd(root / frame.landmarks)
            if not np.isfinite(points).any():  # nothing in it was tracked
                continue
            scans.append((points, read_obj(root / frame.source).vertices_mm))
            tried.append(frame.landmarks)
        except ScanError as error:  # it is reported when its turn comes
            errors.append(str(error))
        if len(scans) == _PROBED_SCANS:
            break
    found = find_axis_signs(scans)
    words = [f"{'+' if sign > 0 else '-'}{axis}" for sign, axis in zip(found[0], "xyz", strict=True)] if found else []
    return _Probe(" ".join(words), tried, errors)


def read_bp4d_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads a frame with its picture and its landmarks in the scan's axes; landmarks that lie off the surface become NaN, and a
    note says so.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    mesh = read_obj(root / record.source, texture=root / record.texture if record.texture else None)
    axes = dict(record.options).get(AXES_OPTION, "")
    if not record.landmarks or not axes:
        return mesh
    signs = np.array([-1 if word.startswith("-") else 1 for word in axes.split()], np.float32)
    points = read_tbnd(root / record.landmarks) * signs
    notes: tuple[str, ...] = ()
    if np.isnan(points).all():  # the data set's own word, unless nothing was written: a copy may have failed
        notes = (f"{record.landmarks}: the file is empty",) if is_blank(root / record.landmarks) else ()
    elif (distance := surface_distance_mm(points, mesh.vertices_mm)) > MAX_SURFACE_DISTANCE_MM:
        points = np.full_like(points, np.nan)
        notes = (f"{record.landmarks}: its landmarks lie {distance:.0f} mm off the surface, and are not used",)
    return replace(mesh, landmarks_mm=points, notes=mesh.notes + notes)


def _describe_landmarks(records: Sequence[ScanRecord], probe: _Probe, num_files: int) -> list[str]:
    """Describe which frames have landmarks and in which axes, or why none has.

    Args:
        num_files: landmark files found.
    """
    if probe.axes:
        lines = describe_lacking(records, "landmarks (3DFeatures)", lambda record: not record.landmarks, unit="frames")
        return [*lines, f"landmarks lie on the scans with their axes as {probe.axes} (found by trying)"]
    if not num_files:
        return ["no landmarks (3DFeatures, one .tbnd a frame) found; aligned by geometry"]
    if probe.tried:
        why = f"those tried do not lie on their scans, whatever their axes ({name_some(probe.tried)})"
    else:
        first = f"the first: {probe.errors[0]}" if probe.errors else "none of their points was tracked"
        why = f"none of those tried could be used ({first})"
    return [f"landmarks (3DFeatures, {num_files:,} files): {why}; aligned by geometry"]


BP4D = DatasetReader(
    name="bp4d",
    title="BP4D-Spontaneous",
    licence=(
        "BP4D-Spontaneous: licensed by Binghamton University for research; faces may only be shown as its agreement allows"
    ),
    class_names=BP4D_EMOTIONS,
    find=find_bp4d,
    read=read_bp4d_scan,
    num_landmarks=NUM_BU_LANDMARKS,
    landmark_groups=BP4D_LANDMARK_GROUPS,
    au_names=AU_NAMES,
    frames_per_second=25.0,
    stabilised=True,
)
