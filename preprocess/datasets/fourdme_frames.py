"""Where the frames of a 4DME clip lie. How its 4D meshes are named is not public: folders of numbered meshes are looked for,
or what the user's pattern says."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.datasets.path_pattern import PathPattern, is_mesh, join_path, list_below, match_files, parse_pattern
from preprocess.datasets.subject_folders import number_frames
from preprocess.readers.surface import IMAGE_SUFFIXES, MESH_SUFFIXES, scan_suffix

_MAX_DIGITS = 10  # longer numbers are dates and times


@dataclass(frozen=True, slots=True)
class FrameFile:
    """One frame: its number, and its mesh and texture ("" where there is none) relative to the root."""

    number: int
    source: str
    texture: str


def parse_frame_pattern(text: str) -> PathPattern:
    """Parse a pattern with {clip}, {frame} and perhaps {subject}: clips' folders need no subject's folder above them.

    Raises:
        FacetError: as parse_pattern.
    """
    return parse_pattern(
        text,
        needed=("clip", "frame"),
        known=("subject", "clip", "frame"),
        example="Meshes/{subject}/{clip}/*_{frame}.obj",
    )


class FrameFinder:
    """Finds the frames of clips below a root, each folder listed once.

    repeated: files left out, as another has their frame's number.
    """

    def __init__(self, root: Path, pattern: PathPattern | None) -> None:
        self.repeated: list[str] = []
        self._pattern = pattern
        self._list = list_below(root)
        self._files: dict[str, dict[str, str]] = {}  # folder → name in lower case → name

    def find_frames(self, subject: str, clip: str) -> list[FrameFile]:
        """Return a clip's frames by number. Of several files with one number, the first by ending and name is taken.

        Without a pattern: the meshes in `subject/clip`, in the root or up to two folders below it; a frame's number is the
        last in its name. `1` also means a folder `01`, `s1` or `sub_001` where there is no folder `1`.
        """
        if self._pattern is not None:
            matched = match_files(self._pattern, self._list, {"subject": subject, "clip": clip}).files
            named = [(path, values["frame"]) for path, values in matched if is_mesh(path)]
            files = [(path, int(digits)) for path, digits in named if len(digits) < _MAX_DIGITS]
        else:
            files = [file for folder in self._find_folders(subject, clip) for file in self._number_files(folder)]
        frames = number_frames(((number, path) for path, number in sorted(files, key=_rank)), self.repeated)
        return [FrameFile(number, path, self._find_texture(path)) for number, path in sorted(frames.items())]

    def find_others(self, sources: Sequence[str]) -> list[str]:
        """Return folders of numbered meshes beside the folders of these frames.

        Args:
            sources: paths of frames, one of each folder that was found.
        """
        used = {_parent(source) for source in sources}
        people = {_parent(folder) for folder in used if "/" in folder}
        for base in {_parent(person) for person in people}:
            people |= {join_path(base, name) for name in self._list(base)[0]}
        folders = {join_path(person, name) for person in people for name in self._list(person)[0]}
        return [folder for folder in sorted(folders - used) if self._number_files(folder)]

    def suggest_pattern(self, clips: Sequence[str]) -> str:
        """Return advice such as ` such as …` with a pattern for folders named like the clips, "" if there are none."""
        for base in self._bases():
            names = {name.lower() for name in self._list(base)[0]}
            if any(clip.lower() in names for clip in clips):
                return f" '{join_path(base, '{clip}/*{frame}')}'"
        return ""

    def _bases(self) -> list[str]:
        """Return folders that may hold the subjects' folders: the root, its folders, and theirs."""
        top = self._list("")[0]
        return ["", *top, *(join_path(folder, name) for folder in top for name in self._list(folder)[0])]

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
        return join_path(folder, same[0]) if same else None

    def _number_files(self, folder: str) -> list[tuple[str, int]]:
        """Return the meshes in a folder that have a number, the last in their names."""
        numbers = {name: re.findall(r"[0-9]+", os.path.splitext(name)[0]) for name in self._list(folder)[1]}  # noqa: PTH122
        return [
            (join_path(folder, name), int(found[-1]))
            for name, found in numbers.items()
            if is_mesh(name) and found and len(found[-1]) < _MAX_DIGITS
        ]

    def _find_texture(self, path: str) -> str:
        """Return the image beside a mesh that has its name, "" if there is none."""
        folder, _, name = path.rpartition("/")
        stem = name[: -len(scan_suffix(name))].lower()
        if folder not in self._files:
            self._files[folder] = {other.lower(): other for other in self._list(folder)[1]}
        images = self._files[folder]
        image = next((images[stem + suffix] for suffix in IMAGE_SUFFIXES if stem + suffix in images), "")
        return join_path(folder, image) if image else ""


def _rank(file: tuple[str, int]) -> tuple[int, int, str]:
    """Order files of one number by their format, then by name."""
    path, number = file
    return number, MESH_SUFFIXES.index(scan_suffix(path)), path


def _only_number(name: str) -> int | None:
    numbers = re.findall(r"[0-9]+", name)
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < _MAX_DIGITS else None


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
