"""The sequences of BP4D-Spontaneous and BP4D+: frames, their landmarks and action units."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.datasets.bp4d_action_units import ActionUnits
from preprocess.datasets.bp4d_axes import MAX_SURFACE_DISTANCE_MM, find_axis_signs, surface_distance_mm
from preprocess.datasets.bp4d_edition import PLUS_LANDMARKS, Edition
from preprocess.datasets.bp4d_folders import (
    SUBJECT,
    LandmarkFiles,
    find_au_files,
    find_frame_folders,
    find_task_folders,
    has_meshes,
    name_task,
)
from preprocess.datasets.completeness import (
    OWN_PICTURES,
    REPEATED,
    describe_counts,
    describe_gaps,
    describe_lacking,
    describe_missing,
    describe_some,
)
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord
from preprocess.datasets.subject_folders import (
    describe_archives,
    describe_left_out,
    find_texture,
    list_files,
    number_frames,
)
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bu_landmarks import (
    BP4D_LANDMARK_GROUPS,
    NUM_BU_LANDMARKS,
    is_in_bp4d_order,
    read_bndplus,
    read_tbnd,
)
from preprocess.readers.file_bytes import is_blank
from preprocess.readers.obj import read_obj
from shared.errors import ScanError, name_some

AXES_OPTION = "landmark_axes"  # a record's option: the signs of the landmarks' axes on the scan, "+x +y -z"
_PROBED_SCANS, _PROBE_TRIES = 3, 9
_RENUMBERED = (
    "no sequence begins with frame 0, as BP4D's do; frame N is taken for action-unit frame N + 1, so the units of frames that "
    "were numbered anew from 1 are one frame off"
)


def find_sequences(root: Path, *, edition: Edition) -> Listing:
    """List every frame, by subject, task and number, with its action units.

    The landmarks are left-handed, and the guide does not say which axis is mirrored. A few scans are read to find the signs
    that put the landmarks on the surface; the records name these. If no signs do, no landmarks are listed.

    Raises:
        FacetError: the root holds no such data set, or the other edition.
    """
    subjects, doubts = find_frame_folders(root, edition)
    landmarks = LandmarkFiles(root, subjects.base, edition.landmark_suffix)
    repeated: list[str] = []
    sequences = [
        _list_sequence(root, subject, task, folder, edition.tasks[task], landmarks.of(subject, task), repeated)
        for subject, subject_folder in subjects.folders.items()
        for task, folder in find_task_folders(subject_folder)
        if task in edition.tasks
    ]
    probe = _probe_axes(root, sequences, edition)
    # Coders counted frames from 1. BP4D+'s numbers are not documented: if no sequence begins at 0, they are the coders'.
    least = min((frames[0].frame or 0 for frames in sequences if frames), default=0)
    first_frame = min(least, 1) if edition.is_plus else 0
    units = ActionUnits(edition, *find_au_files(root, subjects.base), first_frame=first_frame)
    records: list[ScanRecord] = []
    for frames in sequences:
        numbers = [record.frame or 0 for record in frames]
        coded = units.read(frames[0].sequence, numbers)[0] if frames else []
        for record, values in zip(frames, coded, strict=True):
            use = bool(probe.axes and record.landmarks)
            options = ((AXES_OPTION, probe.axes),) if use else ()
            records.append(replace(record, landmarks=record.landmarks if use else "", options=options, aus=values))
    num_files = sum(bool(record.landmarks) for frames in sequences for record in frames)
    num_sequences = edition.num_subjects * len(edition.tasks)
    lines = [
        *describe_counts(records, subjects=edition.num_subjects, sequences=num_sequences, scans=edition.num_frames),
        *describe_missing(records),
        *describe_gaps(records),
        *describe_some(repeated, REPEATED),
        *describe_lacking(records, OWN_PICTURES, lambda record: not record.texture, unit="frames"),
        *_describe_landmarks(records, probe, num_files, edition),
        *units.describe(records),
        *([f"frame N is taken for action-unit frame N{' + 1' * (not first_frame)}"] if edition.is_plus else []),
        *([_RENUMBERED] if least and units.occurrence and not edition.is_plus else []),
    ]
    left_out = describe_left_out(
        subjects, SUBJECT, is_part=lambda name: name_task(name) in edition.tasks, has_scans=has_meshes
    )
    return Listing(records, lines + doubts + left_out + describe_archives(root, subjects))


def _list_sequence(
    root: Path,
    subject: str,
    task: str,
    folder: Path,
    label: str,
    landmarks: Mapping[int, str],
    repeated: list[str],
) -> list[ScanRecord]:
    """List a sequence by the names of its files alone: there are a million of them. Names have three or four digits.

    Files of a frame that another file has are added to `repeated`.
    """
    files = list_files(root, folder)
    stems = ((name[:-4], path) for name, path in files.items() if name.endswith(".OBJ"))
    numbered = ((int(stem), path) for stem, path in stems if stem.isdecimal() and stem.isascii())
    return [
        ScanRecord(
            sample_id=f"{subject}/{task}/{(stem := PurePosixPath(path).stem)}",
            subject=subject,
            source=path,
            label=label,
            sequence=f"{subject}/{task}",
            frame=number,
            task=task,
            texture=find_texture(files, stem),
            landmarks=landmarks.get(number, ""),
            groups=(("sex", subject[0]),),
        )
        for number, path in sorted(number_frames(numbered, repeated).items())
    ]


@dataclass(frozen=True, slots=True)
class _Probe:
    """axes: the signs of the landmarks' axes, as `+x +y -z`; empty where none fit. tried: landmark files that were held against
    their scan. errors: why others, or their scans, could not be read."""

    axes: str
    tried: list[str]
    errors: list[str]


def _probe_axes(root: Path, sequences: list[list[ScanRecord]], edition: Edition) -> _Probe:
    """Try up to three scans, of different subjects if possible."""
    with_landmarks = [first for frames in sequences if (first := next((r for r in frames if r.landmarks), None))]
    candidates = {record.subject: record for record in reversed(with_landmarks)}  # the first of each subject
    firsts = [record for record in with_landmarks if candidates[record.subject] is record]
    spare = [record for record in with_landmarks if candidates[record.subject] is not record]
    scans, tried, errors = [], [], []
    for frame in [*firsts, *spare][:_PROBE_TRIES]:
        try:
            points = _read_landmarks(root / frame.landmarks)
            if not np.isfinite(points).any():  # nothing in it was tracked
                continue
            if not (edition.is_order_known or is_in_bp4d_order(points)):
                raise ScanError(
                    f"{frame.landmarks}: its points are not in the order of BP4D (brows, eyes, nose, mouth)"
                )
            scans.append((points, read_obj(root / frame.source).vertices_mm))
            tried.append(frame.landmarks)
        except ScanError as error:  # it is reported when its turn comes
            errors.append(str(error))
        if len(scans) == _PROBED_SCANS:
            break
    found = find_axis_signs(scans)
    words = [f"{'+' if sign > 0 else '-'}{axis}" for sign, axis in zip(found[0], "xyz", strict=True)] if found else []
    return _Probe(" ".join(words), tried, errors)


def read_frame(root: Path, record: ScanRecord) -> Mesh:
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
    points = _read_landmarks(root / record.landmarks) * signs
    notes: tuple[str, ...] = ()
    if np.isnan(points).all():  # the data set's own word, unless nothing was written: a copy may have failed
        notes = (f"{record.landmarks}: the file is empty",) if is_blank(root / record.landmarks) else ()
    elif (distance := surface_distance_mm(points, mesh.vertices_mm)) > MAX_SURFACE_DISTANCE_MM:
        points = np.full_like(points, np.nan)
        notes = (f"{record.landmarks}: its landmarks lie {distance:.0f} mm off the surface, and are not used",)
    return replace(mesh, landmarks_mm=points, notes=mesh.notes + notes)


def _read_landmarks(path: Path) -> np.ndarray:
    return read_bndplus(path) if path.suffix.lower() == PLUS_LANDMARKS else read_tbnd(path)


def _describe_landmarks(records: Sequence[ScanRecord], probe: _Probe, num_files: int, edition: Edition) -> list[str]:
    """Describe which frames have landmarks and in which axes, or why none has.

    Args:
        num_files: landmark files found.
    """
    if probe.axes:
        lines = describe_lacking(records, "landmarks (3DFeatures)", lambda record: not record.landmarks, unit="frames")
        return [*lines, f"landmarks lie on the scans with their axes as {probe.axes} (found by trying)"]
    if not num_files:
        suffix = edition.landmark_suffix
        return [f"no landmarks (3DFeatures, one {suffix} a frame) found; aligned by geometry"]
    if probe.tried:
        why = f"those tried do not lie on their scans, whatever their axes ({name_some(probe.tried)})"
    else:
        first = f"the first: {probe.errors[0]}" if probe.errors else "none of their points was tracked"
        why = f"none of those tried could be used ({first})"
    return [f"landmarks (3DFeatures, {num_files:,} files): {why}; aligned by geometry"]


def make_reader(edition: Edition, class_names: tuple[str, ...]) -> DatasetReader:
    """Return the reader of one of the two data sets."""
    return DatasetReader(
        name=edition.name,
        title=edition.title,
        licence=(
            f"{edition.title}: licensed by Binghamton University for research; faces may only be shown as its agreement allows"
        ),
        class_names=class_names,
        find=functools.partial(find_sequences, edition=edition),
        read=read_frame,
        num_landmarks=NUM_BU_LANDMARKS,
        landmark_groups=BP4D_LANDMARK_GROUPS,
        au_names=edition.au_names,
        frames_per_second=25.0,
        stabilised=True,
    )
