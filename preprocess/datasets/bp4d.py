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
    EXPECTED,
    SUBJECT,
    TASK,
    find_au_files,
    find_feature_folders,
    find_sequences_folder,
    list_names,
    subfolders,
)
from preprocess.datasets.completeness import describe_counts, describe_gaps, describe_lacking, describe_missing
from preprocess.datasets.subject_folders import find_subject_folders
from preprocess.mesh import Mesh
from preprocess.readers.bnd import BU_LANDMARK_GROUPS, NUM_BU_LANDMARKS
from preprocess.readers.obj import read_obj
from preprocess.readers.surface import find_surface_files
from preprocess.readers.tbnd import MAX_SURFACE_DISTANCE_MM, find_axis_signs, read_tbnd, surface_distance_mm
from preprocess.scan import DatasetReader, ScanRecord
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
        FacetError: the root holds no BP4D.
    """
    base = find_sequences_folder(root)
    features = find_feature_folders(root, base)
    sequences = [
        _list_frames(root, subject, f"T{match[1]}", folder, features)
        for subject, subject_folder in find_subject_folders(base, SUBJECT, EXPECTED).items()
        for folder in subfolders(subject_folder)
        if (match := TASK.fullmatch(folder.name))
    ]
    axes = _probe_axes(root, sequences)
    options = ((AXES_OPTION, axes),) if axes else ()
    occurrence, intensity = find_au_files(root, base)
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


def _probe_axes(root: Path, sequences: list[_Sequence]) -> str:
    """The signs of the landmarks' axes from up to three scans of different subjects, as `+x +y -z`; empty: none fit."""
    candidates: dict[str, _Frame] = {}
    spare: list[_Frame] = []
    for sequence in sequences:
        for frame in sequence.frames:
            if frame.landmarks:
                if candidates.setdefault(sequence.subject, frame) is not frame:
                    spare.append(frame)
                break
    scans = []
    for frame in [*candidates.values(), *spare][:_PROBE_TRIES]:
        try:
            points = read_tbnd(root / frame.landmarks).points
            scans.append((points, read_obj(root / frame.source).vertices_mm))
        except ScanError:  # it is reported when its turn comes
            continue
        if len(scans) == _PROBED_SCANS:
            break
    found = find_axis_signs(scans)
    return (
        " ".join(f"{'+' if sign > 0 else '-'}{axis}" for sign, axis in zip(found[0], "xyz", strict=True))
        if found
        else ""
    )


def read_bp4d_scan(root: Path, record: ScanRecord) -> Mesh:
    """Reads a frame with its picture and its landmarks in the scan's axes; landmarks that lie off the surface become NaN.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    mesh = read_obj(root / record.source, texture=root / record.texture if record.texture else None)
    axes = dict(record.options).get(AXES_OPTION, "")
    if not record.landmarks or not axes:
        return mesh
    signs = np.array([-1 if word.startswith("-") else 1 for word in axes.split()], np.float32)
    points = read_tbnd(root / record.landmarks).points * signs
    if surface_distance_mm(points, mesh.vertices_mm) > MAX_SURFACE_DISTANCE_MM:
        points = np.full_like(points, np.nan)
    return replace(mesh, landmarks_mm=points)


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
    lines += describe_lacking(records, "pictures", lambda record: not record.texture, unit="frames")
    base = find_sequences_folder(root)
    features = find_feature_folders(root, base)
    if features and not any(record.landmarks for record in records):
        lines.append(f"{features[0].name}: no scan lies on its landmarks, whatever their axes; aligned by geometry")
    else:
        lines += describe_lacking(records, "landmarks (3DFeatures)", lambda record: not record.landmarks, unit="frames")
    axes = {value for record in records for name, value in record.options if name == AXES_OPTION}
    lines += [f"landmarks lie on the scans with their axes as {value} (found by trying)" for value in sorted(axes)]
    lines += describe_uncoded(records, *find_au_files(root, base))
    return lines


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
    landmark_groups=BU_LANDMARK_GROUPS,
    au_names=AU_NAMES,
    frames_per_second=25.0,
    stabilised=True,
    summarise=summarise_bp4d,
)
