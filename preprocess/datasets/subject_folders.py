"""The folders of a data set's subjects, where its root is the data set itself or the folder around it."""

from __future__ import annotations

import re
from pathlib import Path

from shared.errors import FacetError


def find_subject_folders(root: Path, pattern: re.Pattern[str], expected: str) -> dict[str, Path]:
    """Subjects' folders in the root, or in the one folder below it that has some.

    Args:
        pattern: what a subject's folder is called, upper or lower case. expected: an example path, for the error.
    Returns:
        Subject in upper case → its folder, in order.
    Raises:
        FacetError: no such root, no subjects, in several folders, or one subject twice.
    """
    if not root.is_dir():
        kind = "not a folder" if root.exists() else "no such folder"
        raise FacetError(f"{root}: {kind}; --root must name the data set's folder (with {expected})")
    folders = _matching_folders(root, pattern)
    if not folders:
        nested = {child: found for child in _folders(root) if (found := _matching_folders(child, pattern))}
        if len(nested) > 1:
            names = ", ".join(child.name for child in list(nested)[:4])
            raise FacetError(f"{root}: subjects in several folders ({names}); give one of them as --root")
        folders = next(iter(nested.values()), [])
    if not folders:
        raise FacetError(f"{root}: looked for {expected}, {describe_content(root)}; check --root")
    subjects: dict[str, Path] = {}
    for folder in sorted(folders, key=lambda folder: folder.name.upper()):
        subject = folder.name.upper()
        if subject in subjects:
            raise FacetError(f"{folder}: subject {subject} has two folders ({subjects[subject].name}); remove one")
        subjects[subject] = folder
    return subjects


def describe_content(folder: Path) -> str:
    """What is in a folder, in a few words."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    if not names:
        return "the folder is empty"
    return f"found {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def is_left_behind(name: str) -> bool:
    """Whether a name is the system's, not the data set's: `._0000.obj`, `.DS_Store`, the `__MACOSX` of an unpacked zip."""
    return name.startswith(".") or name == "__MACOSX"


def relative(root: Path, path: Path) -> str:
    """A path as records hold it: from the root, with forward slashes."""
    return path.relative_to(root).as_posix()


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_left_behind(path.name))


def _matching_folders(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [path for path in _folders(folder) if pattern.fullmatch(path.name)]
