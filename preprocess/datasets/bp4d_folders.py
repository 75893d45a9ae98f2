"""Where the parts of a copy of BP4D-Spontaneous lie: frames, landmarks, action units. They come as separate downloads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from preprocess.datasets.subject_folders import describe_content, is_left_behind
from shared.errors import FacetError

EXPECTED = "Sequences(2D+3D)/F001/T1/0000.obj"
SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
TASK = re.compile(r"T0*([1-8])", re.IGNORECASE)
_OCCURRENCE = re.compile(r"([FM]\d{3})_T0*([1-8])\.csv", re.IGNORECASE)
_INTENSITY = re.compile(r"([FM]\d{3})_T0*([1-8])_AU0*(\d{1,2})\.csv", re.IGNORECASE)


def find_sequences_folder(root: Path) -> Path:
    """The folder of the subjects' frames: the root, or one or two levels below it.

    Raises:
        FacetError: no such root, or none or several such folders in it.
    """
    if not root.is_dir():
        kind = "not a folder" if root.exists() else "no such folder"
        raise FacetError(f"{root}: {kind}; --root must name the data set's folder (with {EXPECTED})")
    level = [root]
    for _ in range(3):
        found = [folder for folder in level if _holds_frames(folder)]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found[:4])
            raise FacetError(f"{root}: frames in several folders ({names}); put the subjects of all of them into one")
        if found:
            return found[0]
        level = [child for folder in level for child in subfolders(folder) if not SUBJECT.fullmatch(child.name)]
    raise FacetError(f"{root}: looked for {EXPECTED}, {describe_content(root)}; check --root")


def _holds_frames(folder: Path) -> bool:
    for subject in subfolders(folder):
        if SUBJECT.fullmatch(subject.name):
            for task in subfolders(subject):
                if TASK.fullmatch(task.name) and any(name.lower().endswith(".obj") for name in list_names(task)):
                    return True
    return False


def find_feature_folders(root: Path, base: Path) -> list[Path]:
    """Folders named like 3DFeatures, in the frames' folder or beside it, in the root or beside it."""
    found = [folder for place in _places(root, base) for folder in subfolders(place) if _is_named(folder, "3dfeatures")]
    nested = [child for folder in found for child in subfolders(folder) if _is_named(child, "3dfeatures")]
    return [*found, *nested]


def find_au_files(root: Path, base: Path) -> tuple[dict[str, Path], dict[tuple[str, int], Path]]:
    """The action-unit files, in folders named like AU_OCC and AU_INT, in AUCoding or in any of the places of the features.

    Returns:
        Sequence (`F001/T1`) → its occurrence file; sequence and AU → its intensity file.
    """
    places = _places(root, base)
    places += [folder for place in places for folder in subfolders(place) if _is_named(folder, "aucoding")]
    occurrence: dict[str, Path] = {}
    intensity: dict[tuple[str, int], Path] = {}
    for place in places:
        for folder in subfolders(place):
            if _is_named(folder, "auocc"):
                for path in _walk(folder):
                    if match := _OCCURRENCE.fullmatch(path.name):
                        occurrence.setdefault(f"{match[1].upper()}/T{match[2]}", path)
            elif _is_named(folder, "auint"):
                for path in _walk(folder):
                    if match := _INTENSITY.fullmatch(path.name):
                        intensity.setdefault((f"{match[1].upper()}/T{match[2]}", int(match[3])), path)
    return occurrence, intensity


def subfolders(folder: Path) -> list[Path]:
    """A folder's folders by name; none where the system does not let us look (above the root, say)."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not is_left_behind(entry.name)]
        return [folder / name for name in sorted(names)]
    except OSError:
        return []


def list_names(folder: Path) -> list[str]:
    """The names in a folder, in order, but for what the system left there; no file is touched."""
    names = os.listdir(folder)  # noqa: PTH208  (a million names: iterdir would make a path of each)
    return sorted(name for name in names if not is_left_behind(name))


def _places(root: Path, base: Path) -> list[Path]:
    places = (base, base.parent, root, root.resolve().parent)
    return [place for place in dict.fromkeys(place.resolve() for place in places) if place.is_dir()]


def _is_named(folder: Path, word: str) -> bool:
    return re.sub(r"[^a-z0-9]", "", folder.name.lower()).startswith(word)


def _walk(folder: Path) -> Iterator[Path]:
    """Files in the folder and in those directly below it (one an action unit, in some copies)."""
    for place in (folder, *subfolders(folder)):
        yield from (place / name for name in list_names(place))
