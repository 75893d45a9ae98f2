"""Where the frames of a 4DME clip lie. How its 4D meshes are named is not public: folders of numbered meshes are looked for,
or what the user's pattern says."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.datasets.subject_folders import is_left_behind
from preprocess.readers.surface import MESH_SUFFIXES
from shared.errors import FacetError

_PLACEHOLDERS = ("{subject}", "{clip}", "{frame}")
_NEEDED = ("{clip}", "{frame}")  # clips' folders may have names of their own, without the subject's above them
_TEXTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class FramePattern:
    """A path below the root with {clip}, {frame} and perhaps {subject} in it, in parts: Meshes/{subject}/{clip}/*_{frame}.obj.

    `*` stands for anything within one name. Case does not count. Without a file ending, any mesh file is a frame.
    """

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrameFile:
    """One frame: its number, and its mesh and texture ("" where there is none) relative to the root."""

    number: int
    source: str
    texture: str


def parse_pattern(text: str) -> FramePattern:
    """Parse a path pattern.

    Raises:
        FacetError: a placeholder is missing or unknown, {frame} is not in the last name, or the path leaves the root.
    """
    parts = tuple(part for part in text.strip().replace("\\", "/").split("/") if part not in ("", "."))
    advice = "give one such as Meshes/{subject}/{clip}/*_{frame}.obj"
    missing = [name for name in _NEEDED if name not in text]
    if missing:
        raise FacetError(f"pattern {text!r}: lacks {', '.join(missing)}; {advice}")
    if "{frame}" not in parts[-1] or parts[-1].count("{frame}") > 1 or any("{frame}" in part for part in parts[:-1]):
        raise FacetError(f"pattern {text!r}: {{frame}} must stand once, in the last name; {advice}")
    if text.strip().startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise FacetError(f"pattern {text!r}: leaves the root; {advice}")
    unknown = re.findall(r"\{[^}]*\}", re.sub(r"\{(subject|clip|frame)\}", "", text))
    if unknown:
        raise FacetError(f"pattern {text!r}: unknown {unknown[0]}, there are {', '.join(_PLACEHOLDERS)}; {advice}")
    return FramePattern(parts)


class FrameFinder:
    """Finds the frames of clips below a root, each folder listed once."""

    def __init__(self, root: Path, pattern: FramePattern | None) -> None:
        self._root = root
        self._pattern = pattern
        self._names: dict[str, tuple[list[str], list[str]]] = {}

    def find_frames(self, subject: str, clip: str) -> list[FrameFile]:
        """Return a clip's frames by number. Of several files with one number, the first by ending and name is taken.

        Without a pattern: the meshes in `subject/clip`, in the root or up to two folders below it; a frame's number is the
        last in its name. `1` also means a folder `01`, `s1` or `sub_001` where there is no folder `1`.
        """
        if self._pattern is None:
            folders = self._find_folders(subject, clip)
            expression = None
        else:
            folders = [""]
            for part in self._pattern.parts[:-1]:
                regex = _to_regex(part, subject, clip)
                folders = [
                    _join(base, name) for base in folders for name in self._list(base)[0] if regex.fullmatch(name)
                ]
            expression = _to_regex(self._pattern.parts[-1], subject, clip)
        frames: dict[int, FrameFile] = {}
        for folder in folders:
            for frame in self._number_files(folder, expression):
                frames.setdefault(frame.number, frame)
        return [frames[number] for number in sorted(frames)]

    def find_others(self, sources: Sequence[str]) -> list[str]:
        """Return folders of numbered meshes beside the folders of these frames.

        Args:
            sources: paths of frames, one of each folder that was found.
        """
        used = {_parent(source) for source in sources}
        people = {_parent(folder) for folder in used if "/" in folder}
        for base in {_parent(person) for person in people}:
            people |= {_join(base, name) for name in self._list(base)[0]}
        folders = {_join(person, name) for person in people for name in self._list(person)[0]}
        return [folder for folder in sorted(folders - used) if self._number_files(folder, None)]

    def suggest_pattern(self, clips: Sequence[str]) -> str:
        """Return advice such as ` such as …` with a pattern for folders named like the clips, "" if there are none."""
        for base in self._bases():
            names = {name.lower() for name in self._list(base)[0]}
            if any(clip.lower() in names for clip in clips):
                return f" '{_join(base, '{clip}/*{frame}')}'"
        return ""

    def _bases(self) -> list[str]:
        """Return folders that may hold the subjects' folders: the root, its folders, and theirs."""
        top = self._list("")[0]
        return ["", *top, *(_join(folder, name) for folder in top for name in self._list(folder)[0])]

    def _find_folders(self, subject: str, clip: str) -> list[str]:
        for base in self._bases():
            person = self._child(base, subject)
            if person is not None:
                folder: str | None = person
                for part in clip.split("/"):
                    folder = self._child(folder, part) if folder is not None else None
                if folder is not None:
                    return [folder]
        return []

    def _child(self, folder: str, name: str) -> str | None:
        """Return the subfolder of that name; for a number, the only subfolder with this number in its name."""
        children = self._list(folder)[0]
        same = [child for child in children if child.lower() == name.lower()]
        if not same and (digits := _only_number(name)) is not None:
            alike = [
                child
                for child in children
                if _only_number(child) == digits and child[:1].lower() in ("s", *"0123456789")
            ]
            same = alike if len(alike) == 1 else []
        return _join(folder, same[0]) if same else None

    def _number_files(self, folder: str, expression: re.Pattern[str] | None) -> list[FrameFile]:
        files = self._list(folder)[1]
        by_name = {name.lower(): name for name in files}
        found: list[tuple[int, int, str]] = []
        for name in files:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a name, not a path)
            if suffix.lower() not in MESH_SUFFIXES:
                continue
            if expression is not None:
                match = expression.fullmatch(name) or expression.fullmatch(stem)
                number = match["frame"] if match else None
            else:
                numbers = re.findall(r"[0-9]+", stem)
                number = numbers[-1] if numbers else None
            if number is not None and len(number) < 10:
                found.append((int(number), MESH_SUFFIXES.index(suffix.lower()), name))
        frames = []
        for number_, _, name in sorted(found):
            stem = os.path.splitext(name)[0].lower()  # noqa: PTH122
            texture = next((by_name[stem + suffix] for suffix in _TEXTURE_SUFFIXES if stem + suffix in by_name), "")
            frames.append(FrameFile(number_, _join(folder, name), _join(folder, texture) if texture else ""))
        return frames

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's subfolders and files, sorted; empty if it cannot be read."""
        if folder not in self._names:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(self._root / folder) as entries:
                    for entry in entries:
                        if is_left_behind(entry.name):
                            continue
                        (folders if entry.is_dir() else files).append(entry.name)
            except OSError:
                pass
            self._names[folder] = sorted(folders), sorted(files)
        return self._names[folder]


def _to_regex(part: str, subject: str, clip: str) -> re.Pattern[str]:
    known = {"{subject}": re.escape(subject), "{clip}": re.escape(clip), "{frame}": r"(?P<frame>[0-9]+)", "*": "[^/]*"}
    part = part.replace("*{frame}", "*{digits}")  # all digits of the number, of which `*` takes none
    known["{digits}"] = f"(?<![0-9]){known['{frame}']}"
    pieces = re.split(r"(\{subject\}|\{clip\}|\{frame\}|\{digits\}|\*)", part)
    return re.compile("".join(known.get(piece, re.escape(piece)) for piece in pieces), re.IGNORECASE)


def _only_number(name: str) -> int | None:
    numbers = re.findall(r"[0-9]+", name)
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < 10 else None


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
