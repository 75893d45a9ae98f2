"""The folders of a data set's subjects: in its root, or deeper where a copy was unpacked into folders of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from preprocess.datasets.completeness import describe_some
from preprocess.datasets.layouts import describe_other_layout
from shared.errors import FacetError, name_some

_MAX_DEPTH = 8  # of a mirror of a web site
_MAX_FOLDERS = 2000  # looked into on the way to the subjects, which are not counted
_MAX_SAME = 3  # F001/F001/…: archives unpacked into folders of their own names
_TEXTURE_SUFFIXES = (".PNG", ".BMP", ".JPG", ".JPEG")
_ARCHIVE = re.compile(r".+\.(zip|rar|7z|tar|tgz|tbz2?|txz|gz|bz2|xz|z[0-9]{2}|r[0-9]{2}|(zip|7z|rar)\.[0-9]{3})", re.I)


@dataclass(frozen=True)
class Subjects:
    """base: the folder that holds the subjects' folders. folders: subject in upper case → its folder, in order."""

    base: Path
    folders: dict[str, Path]


def find_subject_folders(
    root: Path, pattern: re.Pattern[str], expected: str, *, name: str, holds: Callable[[Path], bool]
) -> Subjects:
    """Find the subjects' folders: in the root, else in the nearest folder below it that has some with scans.

    Args:
        pattern: what a subject's folder is called, upper or lower case. expected: an example path, for the error.
        name: the data set's, for the error. holds: whether a subject's folder holds scans.
    Raises:
        FacetError: no such root, no subjects with scans, in several folders, or one subject twice.
    """
    if not root.is_dir():
        kind = "not a folder" if root.exists() else "no such folder"
        raise FacetError(f"{root}: {kind}; --root must name the data set's folder (with {expected})")
    empty: Path | None = None
    for level in search_levels(root, pattern):
        found = []
        for folder in level:
            named = [child for child in subfolders(folder) if pattern.fullmatch(child.name)]
            if any(holds(_unwrap(child)) for child in named):
                found.append(folder)
            elif named:
                empty = empty or named[0]
        if len(found) > 1:
            names = ", ".join(_relative_name(root, folder) for folder in found[:4])
            raise FacetError(
                f"{root}: subjects in several folders ({names}); put them into one, or give one of these as --root"
            )
        if found:
            return Subjects(found[0], _name_subjects(found[0], pattern))
    if pattern.fullmatch(root.resolve().name) and holds(root):
        raise FacetError(f"{root}: is one subject's folder; give the folder that holds the subjects' as --root")
    where = f", and in {_relative_name(root, empty)}/ {describe_content(empty)}" if empty else ""
    raise FacetError(
        f"{root}: looked for {expected}, {describe_content(root)}{where}{describe_archives_below(root, pattern)}"
        f"{describe_other_layout(root, search_levels, name)}; check --root"
    )


def holds_scans(scan: re.Pattern[str]) -> Callable[[Path], bool]:
    """Return whether a subject's folder holds files whose names match `scan`, with the subject as their first group."""

    def holds(folder: Path) -> bool:
        names = (name.upper() for name in list_names(folder))
        return any(match[1] == folder.name.upper() for name in names if (match := scan.fullmatch(name)))

    return holds


def find_texture(names: Mapping[str, str], stem: str) -> str:
    """Return the path of the image called `stem`, "" if there is none. names: name in upper case → path."""
    return next((names[stem + suffix] for suffix in _TEXTURE_SUFFIXES if stem + suffix in names), "")


def list_files(root: Path, folder: Path) -> dict[str, str]:
    """Return the names in a folder, in upper case and in order → their paths from the root, with forward slashes."""
    prefix = folder.relative_to(root).as_posix()
    return {name.upper(): f"{prefix}/{name}" for name in list_names(folder)}


def number_frames(files: Iterable[tuple[int, str]], repeated: list[str]) -> dict[int, str]:
    """Return frame number → its first file; further files (`0001.obj` after `001.obj`) are added to `repeated`."""
    frames: dict[int, str] = {}
    for number, path in files:
        if number in frames:
            repeated.append(path)
        else:
            frames[number] = path
    return frames


def _name_subjects(base: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    subjects: dict[str, Path] = {}
    matching = [folder for folder in subfolders(base) if pattern.fullmatch(folder.name)]
    for folder in sorted(matching, key=lambda folder: folder.name.upper()):
        subject = folder.name.upper()
        if subject in subjects:
            raise FacetError(f"{folder}: subject {subject} has two folders ({subjects[subject].name}); remove one")
        subjects[subject] = _unwrap(folder)
    return subjects


def _unwrap(folder: Path) -> Path:
    """Return F001/F001 of F001: some programs unpack each archive into a folder of its name."""
    for _ in range(_MAX_SAME):
        same = [child for child in subfolders(folder) if child.name.upper() == folder.name.upper()]
        if not same:
            break
        folder = same[0]
    return folder


def search_levels(root: Path, stop: re.Pattern[str]) -> Iterator[list[Path]]:
    """Yield the root, then the folders in it, then those in these, down to a limited depth.

    Args:
        stop: names of folders that are not looked into.
    """
    level, seen, count = [root], {os.path.realpath(root)}, 0
    for _ in range(_MAX_DEPTH + 1):
        yield level
        below = []
        for folder in level:
            for child in subfolders(folder):
                real = os.path.realpath(child)
                if stop.fullmatch(child.name) or real in seen:  # a link may lead in circles
                    continue
                seen.add(real)
                below.append(child)
                count += 1
                if count >= _MAX_FOLDERS:
                    return
        if not below:
            return
        level = below


def parents_up_to(base: Path, root: Path) -> list[Path]:
    """Return a folder below the root, then the folders above it up to the root, without links."""
    base, root = base.resolve(), root.resolve()
    return [base, *(folder for folder in base.parents if folder == root or root in folder.parents)]


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's subfolders, sorted; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not is_left_behind(entry.name)]
        return [folder / name for name in sorted(names)]
    except OSError:
        return []


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted, without system files. Opens no file."""
    names = os.listdir(folder)  # noqa: PTH208  (a million names: iterdir would make a path of each)
    return sorted(name for name in names if not is_left_behind(name))


def describe_content(folder: Path) -> str:
    """Describe what is in a folder, in a few words."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not is_left_behind(path.name))
    if not names:
        return "the folder is empty"
    return f"found {name_some(names)}"


def find_archives(folder: Path) -> list[str]:
    """Return the names of archives in a folder; none if it cannot be read."""
    try:
        return [name for name in list_names(folder) if _ARCHIVE.fullmatch(name) and not (folder / name).is_dir()]
    except OSError:
        return []


def describe_left_out(
    subjects: Subjects, pattern: re.Pattern[str], *, is_part: Callable[[str], bool], has_scans: Callable[[Path], bool]
) -> list[str]:
    """Describe folders with scans that are not read, because their names are not those of a subject or of its parts.

    Args:
        pattern: what a subject's folder is called. is_part: whether a name is that of a folder in it that is read.
    """
    strangers = [folder for folder in subfolders(subjects.base) if not pattern.fullmatch(folder.name)]
    found = [f"{folder.name}/" for folder in strangers if any(has_scans(child) for child in subfolders(folder))]
    for subject, folder in subjects.folders.items():
        others = [child for child in subfolders(folder) if not is_part(child.name)]
        found += [f"{subject}/{child.name}/" for child in others if has_scans(child)]
    return describe_some(found, "folders with scans that are left out, by their names")


def describe_strange(files: Mapping[str, Mapping[str, str]], suffix: str, scan: re.Pattern[str]) -> list[str]:
    """Describe meshes that are not read, because their names are no scan's, or another subject's.

    Args:
        files: subject → NAME → path. suffix: of meshes, in capitals. scan: a scan's name; its first group is the subject.
    """
    strange = [
        path
        for subject, names in files.items()
        for name, path in names.items()
        if name.endswith(suffix) and ((match := scan.fullmatch(name)) is None or match[1] != subject.upper())
    ]
    return describe_some(strange, "meshes that are left out, by their names")


def describe_archives(root: Path, subjects: Subjects) -> list[str]:
    """Describe archives in and above the subjects' folders that were not unpacked."""
    above = [folder for folder in subjects.base.parents if root == folder or root in folder.parents]
    folders = (*reversed(above), subjects.base, *subjects.folders.values())
    found = [_relative_name(root, folder / name) for folder in folders for name in find_archives(folder)]
    return describe_some(found, "archives that are not unpacked, so not read")


def describe_archives_below(root: Path, stop: re.Pattern[str]) -> str:
    """Return advice on archives in the root or the nearest folder below it, "" if there are none.

    Args:
        stop: names of folders that are not looked into.
    """
    for level in search_levels(root, stop):
        found = [_relative_name(root, folder / name) for folder in level for name in find_archives(folder)]
        if found:
            return f"; archives are not read, unpack them first ({name_some(found)})"
    return ""


def is_left_behind(name: str) -> bool:
    """Whether a name is the system's, not the data set's: `._0000.obj`, `.DS_Store`, the `__MACOSX` of an unpacked zip."""
    return name.startswith(".") or name == "__MACOSX"


def _relative_name(root: Path, path: Path) -> str:
    return "." if path == root else path.relative_to(root).as_posix()
