"""Files that a scan's file names: looked for in its own folder and below, never elsewhere."""

from __future__ import annotations

from pathlib import Path

from shared.errors import ScanError


def find_beside(path: Path, name: str) -> Path | None:
    """The file that `path` means by `name`, in the same folder or below; None where there is none.

    A path of another computer (`C:\\\\scans\\\\face.jpg`, `../face.jpg`) is reduced to its last part; upper and lower case
    need not agree; an address (`http://…`) is never followed. Nor is a link that leads out of the folder: what a file from
    elsewhere names must not become part of a cache. (Links that the user lists, or that lead to the folder, are followed.)

    Raises:
        ScanError: the name is a link out of the folder.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or "\0" in name or "://" in name or parts[-1] == "..":
        return None
    inside = ".." not in parts and not name.startswith(("/", "\\")) and ":" not in parts[0]
    for candidate in ([Path(*parts)] if inside else []) + [Path(parts[-1])]:
        file = path.parent / candidate
        try:
            if file.is_file():
                return _inside(path, file)
            if file.parent.is_dir():
                for other in file.parent.iterdir():
                    if other.name.lower() == file.name.lower() and other.is_file():
                        return _inside(path, other)
        except OSError:  # a name the file system cannot hold
            continue
    return None


def _inside(path: Path, file: Path) -> Path:
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise ScanError(f"{path}: {file.name} is a link out of its folder; put a copy of the file itself there")
    return file
