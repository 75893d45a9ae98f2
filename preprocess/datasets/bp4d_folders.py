"""Where the parts of a copy of BP4D-Spontaneous lie: frames, landmarks, action units. They come as separate downloads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from preprocess.datasets.subject_folders import (
    Subjects,
    find_subject_folders,
    list_names,
    parents_up_to,
    search_levels,
    subfolders,
)
from shared.errors import FacetError

EXPECTED = "Sequences(2D+3D)/F001/T1/0000.obj"
SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
TASK = re.compile(r"T0*([1-8])", re.IGNORECASE)
_ANY_TASK = re.compile(r"T0*(\d{1,2})", re.IGNORECASE)
_LARGEST = {"F": 23, "M": 18}  # the last woman's and the last man's number
_LAST_TASK = 8
_OCCURRENCE = re.compile(r"([FM]\d{3})_T0*(\d{1,2})\.csv", re.IGNORECASE)
_INTENSITY = re.compile(r"([FM]\d{3})_T0*(\d{1,2})_AU0*(\d{1,2})\.csv", re.IGNORECASE)
_PLUS_LANDMARKS = ".bndplus"
_SEEN_NAMED = 4


def find_bp4d_subjects(root: Path) -> Subjects:
    """Find the subjects' folders of frames.

    Raises:
        FacetError: no such root, none or several folders with frames in it, or the data set is BP4D+, which has other tasks
            under the same names.
    """
    try:
        subjects = find_subject_folders(root, SUBJECT, EXPECTED, name="bp4d", holds=_holds_frames)
    except FacetError:
        if not root.is_dir() or not _find_signs_of_plus(root, Subjects(root, {})):
            raise
        subjects = Subjects(root, {})
    if seen := _find_signs_of_plus(root, subjects):
        raise FacetError(
            f"{root}: this is BP4D+ (MMSE) or a mixture with it, not BP4D: {'; '.join(seen[:_SEEN_NAMED])}; its tasks "
            "show other emotions and there is no reader for it yet: list its scans in a manifest.csv and build them as folder"
        )
    return subjects


def _holds_frames(subject: Path) -> bool:
    return any(_ANY_TASK.fullmatch(task.name) and _has_meshes(task) for task in subfolders(subject))


def _has_meshes(folder: Path) -> bool:
    return any(name.lower().endswith(".obj") for name in list_names(folder))


def _find_signs_of_plus(root: Path, subjects: Subjects) -> list[str]:
    """Return signs of BP4D+: things that BP4D-Spontaneous does not have."""
    seen = []
    strangers = [name for name in subjects.folders if _is_beyond(name)]
    if strangers:
        seen.append(f"subjects beyond F{_LARGEST['F']:03d} and M{_LARGEST['M']:03d} ({', '.join(strangers[:3])})")
    for subject, folder in subjects.folders.items():
        tasks = [task.name for task in subfolders(folder) if _is_further_task(task.name) and _has_meshes(task)]
        if tasks:
            seen.append(f"tasks beyond T{_LAST_TASK} ({', '.join(f'{subject}/{task}' for task in tasks[:3])})")
            break
    candidates = _candidate_folders(
        root, subjects.base, beside_root=False
    )  # what stands beside the root may well be another data set's
    for folder in _feature_levels(candidates):
        if (name := _find_plus_landmarks(folder)) is not None:
            seen.append(f"landmarks in {_PLUS_LANDMARKS} files ({folder.name}/{name})")
            break
    coded = {name for name, _ in _list_au_files(candidates)}
    if others := sorted(name for name in coded if _is_beyond(name) or _is_further_task(name.partition("/")[2])):
        seen.append(f"action units of subjects or tasks beyond BP4D's ({', '.join(others[:3])})")
    return seen


def is_named_as_plus(base: Path) -> bool:
    """Return whether the frames' folder is called `2D+3D`, as in BP4D+; BP4D's is `Sequences(2D+3D)`."""
    return re.sub(r"[^a-z0-9]", "", base.name.lower()) == "2d3d"


def _is_beyond(name: str) -> bool:
    return int(name[1:4]) > _LARGEST[name[0].upper()]


def _is_further_task(name: str) -> bool:
    match = _ANY_TASK.fullmatch(name)
    return match is not None and int(match[1]) > _LAST_TASK


def _find_plus_landmarks(folder: Path) -> str | None:
    try:
        with os.scandir(folder) as entries:
            return next((entry.name for entry in entries if entry.name.lower().endswith(_PLUS_LANDMARKS)), None)
    except OSError:
        return None


def find_feature_folders(root: Path, base: Path) -> list[Path]:
    """Find folders of subjects' landmarks: named like 3DFeatures, beside or below the frames' folder or the root."""
    return [
        folder
        for folder in _feature_levels(_candidate_folders(root, base))
        if any(SUBJECT.fullmatch(child.name) for child in subfolders(folder))
    ]


def _feature_levels(candidates: list[Path]) -> list[Path]:
    """Return folders named like 3DFeatures, and all folders below them that are not a subject's."""
    words = ("3dfeatures", "faciallandmarks", "bnd")
    found = [folder for candidate in candidates for folder in subfolders(candidate) if _is_named(folder, *words)]
    below = [folder for start in found for level in search_levels(start, SUBJECT) for folder in level]
    return list(dict.fromkeys(below))


def find_au_files(root: Path, base: Path) -> tuple[dict[str, Path], dict[tuple[str, int], Path]]:
    """Find the action-unit files, in folders named like AU_OCC and AU_INT, in AUCoding or beside the features.

    Returns:
        Sequence (`F001/T1`) → its occurrence file; sequence and AU → its intensity file.
    """
    occurrence: dict[str, Path] = {}
    intensity: dict[tuple[str, int], Path] = {}
    for sequence, path in _list_au_files(_candidate_folders(root, base)):
        match = _INTENSITY.fullmatch(path.name)
        if match is None:
            occurrence.setdefault(sequence, path)
        else:
            intensity.setdefault((sequence, int(match[3])), path)
    return occurrence, intensity


def _list_au_files(candidates: list[Path]) -> Iterator[tuple[str, Path]]:
    """Yield sequence and path of every action-unit file whose name fits its folder."""
    coding = [folder for candidate in candidates for folder in subfolders(candidate) if _is_named(folder, "aucoding")]
    candidates = candidates + [
        folder for start in coding for level in search_levels(start, SUBJECT) for folder in level
    ]
    for candidate in dict.fromkeys(candidates):
        for folder in subfolders(candidate):
            pattern = _OCCURRENCE if _is_named(folder, "auocc") else _INTENSITY if _is_named(folder, "auint") else None
            for path in _walk(folder) if pattern is not None else ():
                if pattern is not None and (match := pattern.fullmatch(path.name)):
                    yield f"{match[1].upper()}/T{match[2]}", path


def _candidate_folders(root: Path, base: Path, *, beside_root: bool = True) -> list[Path]:
    """Return folders in which the other parts may stand: from the frames' folder up to the root, and the one around it."""
    top = root.resolve()
    candidates = [*parents_up_to(base, root), base.resolve().parent, top, *([top.parent] if beside_root else [])]
    return [candidate for candidate in dict.fromkeys(candidates) if candidate.is_dir()]


def _is_named(folder: Path, *words: str) -> bool:
    return re.sub(r"[^a-z0-9]", "", folder.name.lower()).startswith(words)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files in the folder and in its direct subfolders (one per action unit, in some copies)."""
    for child in (folder, *subfolders(folder)):
        yield from (child / name for name in list_names(child))
