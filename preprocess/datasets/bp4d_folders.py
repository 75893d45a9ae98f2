"""Where the parts of a copy of BP4D-Spontaneous or BP4D+ lie: frames, landmarks, action units, each a download of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from preprocess.datasets.bp4d_edition import LAST_SUBJECTS, LAST_TASK, PLUS_LANDMARKS, Edition
from preprocess.datasets.subject_folders import (
    Subjects,
    find_subject_folders,
    list_names,
    parents_up_to,
    search_levels,
    subfolders,
)
from shared.errors import FacetError

SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
TASK = re.compile(r"T0*(\d{1,2})", re.IGNORECASE)
_OCCURRENCE = re.compile(r"([FM]\d{3})_T0*(\d{1,2})\.csv", re.IGNORECASE)
_INTENSITY = re.compile(r"([FM]\d{3})_T0*(\d{1,2})_AU0*(\d{1,2})\.csv", re.IGNORECASE)
_FLAT_LANDMARKS = re.compile(r"([FM]\d{3})_T0*(\d{1,2})_(\d{1,9})(\.\w+)", re.IGNORECASE)
_SEEN_NAMED = 4


def find_frame_folders(root: Path, edition: Edition) -> tuple[Subjects, list[str]]:
    """Find the subjects' folders of frames.

    Returns:
        The folders; and a note if nothing shows which of the two data sets this is.
    Raises:
        FacetError: no such root, none or several folders with frames in it, or the other data set, which has other tasks under
            the same names.
    """
    try:
        subjects = find_subject_folders(root, SUBJECT, edition.expected, name=edition.name, holds=_holds_frames)
    except FacetError:
        if not root.is_dir() or edition.is_plus or not _find_signs_of_plus(root, Subjects(root, {})):
            raise
        subjects = Subjects(root, {})
    name = re.sub(r"[^a-z0-9]", "", subjects.base.name.lower())
    seen = _find_signs_of_plus(root, subjects)
    if not edition.is_plus:
        if seen:
            raise FacetError(
                f"{root}: this is BP4D+ (MMSE) or a mixture with it, not BP4D: {'; '.join(seen[:_SEEN_NAMED])}; its tasks "
                "show other emotions: give the NAME bp4dplus"
            )
        should = "should these be BP4D+'s scans, the labels of T2 to T8 are wrong: give the NAME bp4dplus"
        return subjects, [f"{subjects.base.name}: BP4D+ names its folder so; {should}"] if name == "2d3d" else []
    if seen or name == "2d3d":
        return subjects, []
    if name.startswith("sequences"):
        raise FacetError(
            f"{root}: {subjects.base.name} is BP4D's folder, and nothing there is BP4D+'s; give the NAME bp4d"
        )
    what = f"neither tasks beyond T{LAST_TASK}, subjects beyond BP4D's nor {PLUS_LANDMARKS} files"
    return subjects, [f"{what}: should these be BP4D's scans, the labels of T2 to T8 are wrong: give the NAME bp4d"]


def find_task_folders(subject: Path) -> list[tuple[str, Path]]:
    """Return the tasks of a subject, T1, T2 … by number, and their folders."""
    found = [(int(name[1:]), folder) for folder in subfolders(subject) if (name := name_task(folder.name))]
    return [(f"T{number}", folder) for number, folder in sorted(found)]


def name_task(folder_name: str) -> str:
    """Return the task of a folder, such as T1 of t01; "" if it is none's."""
    match = TASK.fullmatch(folder_name)
    return f"T{match[1]}" if match else ""


def _holds_frames(subject: Path) -> bool:
    return any(has_meshes(folder) for _, folder in find_task_folders(subject))


def has_meshes(folder: Path) -> bool:
    return any(name.lower().endswith(".obj") for name in list_names(folder))


def _find_signs_of_plus(root: Path, subjects: Subjects) -> list[str]:
    """Return signs of BP4D+: things that BP4D-Spontaneous does not have."""
    seen = []
    strangers = [name for name in subjects.folders if _is_beyond(name)]
    if strangers:
        seen.append(
            f"subjects beyond F{LAST_SUBJECTS['F']:03d} and M{LAST_SUBJECTS['M']:03d} ({', '.join(strangers[:3])})"
        )
    for subject, folder in subjects.folders.items():
        tasks = [task.name for task in subfolders(folder) if _is_further_task(task.name) and has_meshes(task)]
        if tasks:
            seen.append(f"tasks beyond T{LAST_TASK} ({', '.join(f'{subject}/{task}' for task in tasks[:3])})")
            break
    # What stands beside the root may well be another data set's.
    candidates = _candidate_folders(root, subjects.base, beside_root=False)
    for folder in _feature_levels(candidates):
        if (name := _find_plus_landmarks(folder)) is not None:
            seen.append(f"landmarks in {PLUS_LANDMARKS} files ({folder.name}/{name})")
            break
    coded = {name for name, _ in _list_au_files(candidates)}
    if others := sorted(name for name in coded if _is_beyond(name) or _is_further_task(name.partition("/")[2])):
        seen.append(f"action units of subjects or tasks beyond BP4D's ({', '.join(others[:3])})")
    return seen


def _is_beyond(name: str) -> bool:
    return int(name[1:4]) > LAST_SUBJECTS[name[0].upper()]


def _is_further_task(name: str) -> bool:
    match = TASK.fullmatch(name)
    return match is not None and int(match[1]) > LAST_TASK


def _find_plus_landmarks(folder: Path) -> str | None:
    try:
        with os.scandir(folder) as entries:
            return next((entry.name for entry in entries if entry.name.lower().endswith(PLUS_LANDMARKS)), None)
    except OSError:
        return None


class LandmarkFiles:
    """The landmark files of all sequences: a folder per sequence (`F001/T1/0000.tbnd`) or flat (`F001_T1_0000.bndplus`).

    They lie in folders named like 3DFeatures, beside or below the frames' folder or the root.
    """

    def __init__(self, root: Path, base: Path, suffix: str) -> None:
        self._root, self._suffix = root, suffix
        levels = _feature_levels(_candidate_folders(root, base))
        self._folders = [folder for folder in levels if any(SUBJECT.fullmatch(c.name) for c in subfolders(folder))]
        self._flat: dict[str, dict[int, str]] = {}
        for folder in levels:
            prefix = self._relative(folder)
            for name in list_names(folder):
                match = _FLAT_LANDMARKS.fullmatch(name)
                if match and match[4].lower() == suffix:
                    frames = self._flat.setdefault(f"{match[1].upper()}/T{match[2]}", {})
                    frames.setdefault(int(match[3]), f"{prefix}/{name}")

    def of(self, subject: str, task: str) -> dict[int, str]:
        """Return frame number → landmark file, relative to the root, from the first folder that has the sequence."""
        for feature_folder in self._folders:
            for subject_folder in subfolders(feature_folder):
                if subject_folder.name.upper() != subject:
                    continue
                for name, folder in find_task_folders(subject_folder):
                    if name != task:
                        continue
                    prefix, length = self._relative(folder), len(self._suffix)
                    names = [name for name in list_names(folder) if name.lower().endswith(self._suffix)]
                    stems = [(name[:-length], name) for name in names]
                    return {int(s): f"{prefix}/{name}" for s, name in stems if s.isdecimal() and s.isascii()}
        return self._flat.get(f"{subject}/{task}", {})

    def _relative(self, folder: Path) -> str:
        return Path(os.path.relpath(folder.resolve(), self._root.resolve())).as_posix()


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
