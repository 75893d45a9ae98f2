"""BP4D-Spontaneous: 41 subjects, eight tasks each, 328 sequences of 368,036 frames at 25 frames a second.

Zhang et al. 2014, "BP4D-Spontaneous: a high-resolution spontaneous 3D dynamic facial expression database"; layout after the
data set's user guide.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from preprocess.datasets.bp4d_action_units import AU_NAMES, describe_uncoded, read_action_units
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
from preprocess.datasets.scan import DatasetReader, ScanRecord
from preprocess.datasets.subject_folders import describe_archives, list_names, subfolders
from preprocess.geometry.mesh import Mesh
from preprocess.readers.bnd import NUM_BU_LANDMARKS
from preprocess.readers.obj import read_obj
from preprocess.readers.surface import find_surface_files
from preprocess.readers.tbnd import (
    BP4D_LANDMARK_GROUPS,
    MAX_SURFACE_DISTANCE_MM,
    find_axis_signs,
    read_tbnd,
    surface_distance_mm,
)
from shared.errors import ScanError
from shared.labels import BP4D_EMOTIONS, BP4D_TASKS

AXES_OPTION = "landmark_axes"  # a record's option: the signs of the landmarks' axes on the scan, "+x +y -z"
_PROBED_SCANS, _PROBE_TRIES = 3, 9
_TEXTURE_SUFFIXES = (".JPG", ".JPEG", ".PNG", ".BMP")


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    source: str
    texture: str
    landmarks: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    subject: str
    task: str
    frames: list[_Frame]

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.task}"


def find_bp4d(root: Path) -> list[ScanRecord]:
    """Every frame, by subject, task and number, with its action units; a few scans are read to find the landmarks' axes.

    The landmarks' coordinate system is left-handed, which of its axes is turned is not said: the signs that put the
    landmarks of some scans on their surface are taken, and noted in the records. Where none do, no landmarks are listed.

    Raises:
        FacetError: the root holds no BP4D, or BP4D+.
    """
    sequences = _list_sequences(root)
    axes = _probe_axes(root, sequences).axes
    options = ((AXES_OPTION, axes),) if axes else ()
    occurrence, intensity = find_au_files(root, find_bp4d_subjects(root).base)
    records = []
    for sequence in sequences:
        frames = [frame.number for frame in sequence.frames]
        units = read_action_units(sequence.name, frames, occurrence, intensity)[0]
        records += [
            ScanRecord(
                sample_id=f"{sequence.name}/{frame.source[frame.source.rfind('/') + 1 : -4]}",
                subject=sequence.subject,
                source=frame.source,
                label=BP4D_TASKS[sequence.task],
                sequence=sequence.name,
                frame=frame.number,
                task=sequence.task,
                texture=frame.texture,
                landmarks=frame.landmarks if axes else "",
                options=options if frame.landmarks else (),
                aus=values,
                groups=(("sex", sequence.subject[0]),),
            )
            for frame, values in zip(sequence.frames, units, strict=True)
        ]
    return records


def _list_sequences(root: Path) -> list[_Sequence]:
    subjects = find_bp4d_subjects(root)
    features = find_feature_folders(root, subjects.base)
    return [
        _list_frames(root, subject, f"T{match[1]}", folder, features)
        for subject, subject_folder in subjects.folders.items()
        for folder in subfolders(subject_folder)
        if (match := TASK.fullmatch(folder.name))
    ]


def _list_frames(root: Path, subject: str, task: str, folder: Path, features: list[Path]) -> _Sequence:
    """A sequence's files by their names alone: there are a million of them. Names have three or four digits: numbers count."""
    prefix = folder.relative_to(root).as_posix()
    landmarks = _list_landmarks(root, subject, task, features)
    names = {name.upper(): name for name in list_names(folder)}
    frames: dict[int, _Frame] = {}
    for upper, name in names.items():
        stem = upper[:-4]
        if not upper.endswith(".OBJ") or not stem.isdecimal() or not stem.isascii() or int(stem) in frames:
            continue
        texture = next((names[stem + suffix] for suffix in _TEXTURE_SUFFIXES if stem + suffix in names), "")
        number = int(stem)
        frames[number] = _Frame(
            number, f"{prefix}/{name}", f"{prefix}/{texture}" if texture else "", landmarks.get(number, "")
        )
    return _Sequence(subject, task, [frames[number] for number in sorted(frames)])


def _list_landmarks(root: Path, subject: str, task: str, features: list[Path]) -> dict[int, str]:
    """Frame number → landmark file, from the first features' folder that has the sequence."""
    for place in features:
        for subject_folder in subfolders(place):
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


def _probe_axes(root: Path, sequences: list[_Sequence]) -> _Probe:
    """Tries up to three scans of different subjects."""
    candidates: dict[str, _Frame] = {}
    spare: list[_Frame] = []
    for sequence in sequences:
        for frame in sequence.frames:
            if frame.landmarks:
                if candidates.setdefault(sequence.subject, frame) is not frame:
                    spare.append(frame)
                break
    scans, tried, errors = [], [], []
    for frame in [*candidates.values(), *spare][:_PROBE_TRIES]:
        try:
            points = read_tbnd(root / frame.landmarks).points
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
    file = read_tbnd(root / record.landmarks)
    points = file.points * signs
    notes: tuple[str, ...] = ()
    if np.isnan(points).all():  # the data set's own word, unless nothing was written: a copy may have failed
        notes = (f"{record.landmarks}: the file is empty",) if np.isnan(file.angles_deg).all() else ()
    elif (distance := surface_distance_mm(points, mesh.vertices_mm)) > MAX_SURFACE_DISTANCE_MM:
        points = np.full_like(points, np.nan)
        notes = (f"{record.landmarks}: its landmarks lie {distance:.0f} mm off the surface, and are not used",)
    return replace(mesh, landmarks_mm=points, notes=mesh.notes + notes)


def find_bp4d_files(root: Path, record: ScanRecord) -> list[Path]:
    """The frame, its picture (by way of its material where none has the frame's name) and its landmarks."""
    files = [root / record.source]
    if record.texture:
        files.append(root / record.texture)
    elif (root / record.source).is_file():
        files = find_surface_files(root / record.source)
    return [*files, root / record.landmarks] if record.landmarks else files


def summarise_bp4d(root: Path, records: Sequence[ScanRecord]) -> list[str]:
    """What a partial copy lacks, and in which axes the landmarks lie."""
    lines = describe_counts(records, subjects=41, sequences=328, scans=368_036)
    lines += describe_missing(records) + describe_gaps(records)
    lines += describe_lacking(records, OWN_PICTURES, lambda record: not record.texture, unit="frames")
    subjects = find_bp4d_subjects(root)
    lines += _describe_landmarks(root, records)
    lines += describe_uncoded(records, *find_au_files(root, subjects.base))
    if is_named_as_plus(subjects.base):
        lines.append(
            f"{subjects.base.name}: BP4D+ names its folder so; should these be BP4D+'s scans, the labels of T2 to T8 are wrong"
        )
    return lines + describe_archives(root, subjects)


def _describe_landmarks(root: Path, records: Sequence[ScanRecord]) -> list[str]:
    """Which frames have landmarks and in which axes; where none has, what was looked at."""
    axes = {value for record in records for name, value in record.options if name == AXES_OPTION}
    if axes:
        lines = describe_lacking(records, "landmarks (3DFeatures)", lambda record: not record.landmarks, unit="frames")
        return lines + [f"landmarks lie on the scans with their axes as {found} (found by trying)" for found in axes]
    sequences = _list_sequences(root)
    num_files = sum(bool(frame.landmarks) for sequence in sequences for frame in sequence.frames)
    if not num_files:
        return ["no landmarks (3DFeatures, one .tbnd a frame) found; aligned by geometry"]
    probe = _probe_axes(root, sequences)
    if probe.tried:
        return [
            f"landmarks (3DFeatures, {num_files:,} files): those tried do not lie on their scans, whatever their axes "
            f"({name_some(probe.tried)}); aligned by geometry"
        ]
    why = f"the first: {probe.errors[0]}" if probe.errors else "none of their points was tracked"
    return [
        f"landmarks (3DFeatures, {num_files:,} files): none of those tried could be used ({why}); aligned by geometry"
    ]


BP4D = DatasetReader(
    name="bp4d",
    title="BP4D-Spontaneous",
    licence=(
        "BP4D-Spontaneous: licensed by Binghamton University for research; faces may only be shown as its agreement allows"
    ),
    class_names=BP4D_EMOTIONS,
    find=find_bp4d,
    read=read_bp4d_scan,
    source_files=find_bp4d_files,
    num_landmarks=NUM_BU_LANDMARKS,
    landmark_groups=BP4D_LANDMARK_GROUPS,
    au_names=AU_NAMES,
    frames_per_second=25.0,
    stabilised=True,
    summarise=summarise_bp4d,
)
