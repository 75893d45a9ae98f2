"""Patterns of paths, such as `{subject}/{sequence}/{sequence}.{frame}.ply`: which files are scans, and what their names say."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.datasets.subject_folders import is_left_behind
from preprocess.readers.surface import MESH_SUFFIXES, scan_suffix
from shared.errors import FacetError, name_some

FRAME = "frame"  # the field that takes digits only
_PIECE = re.compile(r"(\{[^{}]*\}|\*)")
_WILDCARDS = ("{}", "*")
ListFolder = Callable[[str], tuple[list[str], list[str]]]


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A path below the root, in parts.

    `{name}` is a field, `{}` and `*` are anything, each within one name and as short as the rest of the name allows. A field
    that stands twice has one value. `{frame}` takes digits. Case does not count. Without a file ending, any mesh may match.
    """

    text: str
    parts: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields in their order, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in _fields_of(part)))


@dataclass
class PatternMatch:
    """files: path from the root and the fields of each match, in order of the names. others: meshes in matching folders, and
    folders, that do not match or hold no match. stopped: why nothing matched, in words."""

    files: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    stopped: str = ""


def parse_pattern(text: str, *, needed: Collection[str], known: Collection[str] | None, example: str) -> PathPattern:
    """Parse a path pattern.

    Args:
        needed: fields that it must have. known: fields that it may have; None: any.
    Raises:
        FacetError: a field is missing, unknown or cannot be read, {frame} stands twice, or the path leaves the root.
    """
    shown, advice = f"--pattern {text[:120]!r}", f"give one such as '{example}'"
    path = text.strip().replace("\\", "/").removesuffix(".*")  # without an ending, all mesh formats match
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    names = [name for part in parts for name in _fields_of(part)]
    if lacking := [f"{{{name}}}" for name in needed if name not in names]:
        raise FacetError(f"{shown}: lacks {', '.join(lacking)}; {advice}")
    if text.strip().startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise FacetError(f"{shown}: leaves the root; {advice}")
    if any(brace in piece for part in parts for piece in _PIECE.split(part)[::2] for brace in "{}"):
        raise FacetError(f"{shown}: has a brace without its partner; {advice}")
    unknown = [name for name in names if not name or (known is not None and name not in known)]
    if unknown:
        there = f", there are {', '.join(f'{{{name}}}' for name in known)}" if known is not None else ""
        raise FacetError(f"{shown}: unknown {{{unknown[0]}}}{there}; {advice}")
    if names.count(FRAME) > 1:
        raise FacetError(f"{shown}: {{{FRAME}}} must stand once; {advice}")
    return PathPattern(text.strip(), parts)


def match_files(pattern: PathPattern, list_folder: ListFolder, values: Mapping[str, str] | None = None) -> PatternMatch:
    """Find the files of a pattern, reading no folder but those on its path.

    Args:
        list_folder: path from the root, "" for the root itself → the names of its folders and of its files, sorted.
        values: fields whose values are known beforehand.
    """
    found = PatternMatch()
    folders: list[tuple[str, dict[str, str]]] = [("", dict(values or {}))]
    for depth, part in enumerate(pattern.parts[:-1]):
        below: list[tuple[str, dict[str, str]]] = []
        seen: list[str] = []
        for folder, known in folders:
            names = list_folder(folder)[0]
            seen += names
            matched = dict(_match_names(part, names, known))
            below += [(join_path(folder, name), {**known, **matched[name]}) for name in names if name in matched]
            if set(_fields_of(part)) - known.keys():
                found.others += [join_path(folder, name) + "/" for name in names if name not in matched]
            elif not matched:
                found.others.append(folder + "/")
        if not below:
            found.stopped = _describe_stop(pattern, depth, len(folders), "folder", seen)
            return found
        folders = below
    part, seen = pattern.parts[-1], []
    suffix = scan_suffix(part)
    for folder, known in folders:
        names = list_folder(folder)[1]
        seen += names
        # Without an ending of its own, the pattern is held against the names of meshes without theirs.
        stems = {name: name if suffix else name[: -len(scan_suffix(name))] for name in names if suffix or is_mesh(name)}
        matched = dict(_match_names(part, stems.values(), known))
        if folder and not matched and not any(map(is_mesh, names)):
            found.others.append(folder + "/")
        for name in names:
            if name in stems and stems[name] in matched:
                found.files.append((join_path(folder, name), {**known, **matched[stems[name]]}))
            elif is_mesh(name):
                found.others.append(join_path(folder, name))
    if not found.files:
        found.stopped = _describe_stop(pattern, len(pattern.parts) - 1, len(folders), "file", seen)
    return found


def is_mesh(name: str) -> bool:
    """Return whether a file's name ends as a mesh's; a depth image is only one where a pattern says so."""
    return scan_suffix(name) in MESH_SUFFIXES


def list_below(root: Path) -> ListFolder:
    """Return a function that lists folders below a root, each read once; a folder that cannot be read is empty."""

    @functools.cache
    def list_folder(folder: str) -> tuple[list[str], list[str]]:
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if not is_left_behind(entry.name):
                        (folders if entry.is_dir() else files).append(entry.name)
        except OSError:
            pass
        return sorted(folders), sorted(files)

    return list_folder


def join_path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _match_names(part: str, names: Collection[str], known: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each name that a part matches, and the fields that are new in it."""
    used = {name: known[name] for name in _fields_of(part) if name in known}
    regex, fields = _compile(part, tuple(used.items()))
    for name in names:
        if match := regex.fullmatch(name):
            yield name, dict(zip(fields, match.groups(), strict=True))


@functools.lru_cache(maxsize=1 << 12)
def _compile(part: str, known: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return the expression of a part and the fields of its groups, in their order."""
    values, text = dict(known), ""
    new: list[str] = []
    for piece in _PIECE.split(part):
        name = piece[1:-1]
        if piece in _WILDCARDS:
            text += ".*?"
        elif not piece.startswith("{"):
            text += re.escape(piece)
        elif name in values:
            text += re.escape(values[name])
        elif name in new:
            text += f"(?P=f{new.index(name)})"
        else:
            text += f"(?P<f{len(new)}>{'[0-9]+' if name == FRAME else '.+?'})"
            new.append(name)
    return re.compile(text, re.IGNORECASE | re.DOTALL), tuple(new)


def _fields_of(part: str) -> list[str]:
    return [piece[1:-1] for piece in _PIECE.findall(part) if piece not in _WILDCARDS]


def _describe_stop(pattern: PathPattern, depth: int, num_folders: int, kind: str, seen: list[str]) -> str:
    where = f"in {num_folders:,} folders {'/'.join(pattern.parts[:depth])}" if depth else "in the root"
    there = name_some(sorted(set(seen))) or f"no {kind}s"
    return f"looked {where} for a {kind} {pattern.parts[depth]}, found {there}"
