"""Read, list and remove files of a local folder or an object store (s3://bucket/prefix).

A path in an object store behaves like a pathlib.Path for `/`, `.name`, `str()` and pickling; files are read, listed and
removed through the functions here, which distinguish "not there" from "cannot be reached": an unreachable object store must
never appear empty. Credentials, region and AWS_ENDPOINT_URL come from the environment alone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, cast

from shared.errors import CacheError, StorageError, shorten

# Of macOS, Windows, KDE, Synology, NFS, FUSE and snapshots.
_LITTER = re.compile(
    r"(^|/)(\._[^/]*|\.DS_Store|\.AppleDouble|__MACOSX|\.Spotlight-V100|\.Trashes|\.fseventsd|\.TemporaryItems|Icon\r|Thumbs\.db"
    r"|ehthumbs\.db|desktop\.ini|System Volume Information|\$RECYCLE\.BIN|\.directory|@eaDir|#recycle|\.nfs[0-9a-f]+"
    r"|\.fuse_hidden[^/]*|\.snapshots?|\.zfs|\.Trash-\d+|lost\+found)(/|$)",
    re.IGNORECASE,
)


def open_path(text: str | Path) -> Path:
    """Return the path of a folder or address, which need not exist.

    Raises:
        CacheError: an address of another kind, one that carries credentials, or the package for it is not installed.
    """
    if not isinstance(text, str) or "://" not in text:
        return Path(text) if isinstance(text, str) else text
    protocol, _, rest = text.partition("://")
    if "@" in rest or "?" in rest:  # not printed: it may hold a secret
        raise CacheError(
            f"{protocol}://…: holds @ or ?; an address is bucket/prefix, credentials come from the environment"
        )
    bucket, _, prefix = rest.strip("/").partition("/")
    if protocol != "s3" or not bucket or any(part in ("", ".", "..") for part in prefix.split("/")):
        raise CacheError(f"{text}: expected s3://bucket/prefix, plain names between single slashes, or a folder")
    try:
        import s3fs  # noqa: F401
        from upath import UPath
    except ImportError as error:
        raise CacheError(f"{text}: this address needs two more packages: pip install s3fs universal-pathlib") from error
    path = UPath(f"s3://{bucket}/{prefix}", use_listings_cache=False)  # another program may write there meanwhile
    return cast(Path, path)


def is_address(text: str) -> bool:
    """Return whether a text names another machine: s3://…, //server/folder.

    What a file names is only followed on this machine: an address in a received run would get signed requests.
    """
    return "://" in text or text.replace("\\", "/").startswith("//")


def is_remote(path: Path) -> bool:
    return not isinstance(path, PurePath)


def file_system(path: Path) -> tuple[Any, str]:
    """Return the fsspec file system of a remote path, and the path's name in it: bucket/key."""
    remote = cast(Any, path)
    return remote.fs, str(remote.path)


@contextmanager
def report_storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of an object store's libraries into StorageError. FileNotFoundError and FileExistsError pass.

    Raises:
        StorageError: no credentials, no bucket, no permission, no network, or any other refusal.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError) as error:
        if is_missing_bucket(error):
            raise StorageError(f"{path}: there is no such bucket; make it first, or check its name") from error
        raise
    except PermissionError as error:
        raise StorageError(f"{path}: the object store denies access; check the credentials' rights") from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _LIBRARIES:
            raise
        name, text = type(error).__name__, str(error).strip().splitlines()
        if "Credentials" in name or "Credentials" in str(error):
            what = "no credentials found in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        elif "Connect" in name or "Timeout" in name:
            what = "the object store cannot be reached; check the network and AWS_ENDPOINT_URL, then run the same command again"
        else:
            what = f"the object store answers: {shorten(text[0], 160) if text else name}"
        raise StorageError(f"{path}: {what}") from error


_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec", "asyncio")


def is_missing_bucket(error: Exception) -> bool:
    """Return whether the bucket is missing, not only a file in it."""
    return isinstance(error, FileNotFoundError) and "bucket" in str(error).lower()


@contextmanager
def _ignore_missing() -> Iterator[None]:
    """Pass over a missing file, but not over a missing bucket."""
    try:
        yield
    except FileNotFoundError as error:
        if is_missing_bucket(error):
            raise


def is_file(path: Path) -> bool:
    """Return whether a file exists. Unlike pathlib's, it raises StorageError where that cannot be known."""
    return file_size(path) is not None


def file_size(path: Path) -> int | None:
    """Return the bytes of a file; None where there is none."""
    if not is_remote(path):
        return path.stat().st_size if path.is_file() else None
    fs, key = file_system(path)
    with report_storage_errors(path), _ignore_missing():
        entry = fs.info(key)
        return int(entry["size"]) if entry["type"] == "file" else None
    return None


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises FileNotFoundError where there is none."""
    if not is_remote(path):
        return path.read_bytes()
    fs, key = file_system(path)
    with report_storage_errors(path):
        data: bytes = fs.cat_file(key)
    return data


def read_range(path: Path, start: int, end: int) -> bytes:
    """Read the bytes start…end of a file, end exclusive."""
    if not is_remote(path):
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    fs, key = file_system(path)
    with report_storage_errors(path):
        data: bytes = fs.cat_file(key, start=start, end=end)
    return data


def read_ranges(ranges: Sequence[tuple[Path, int, int]]) -> list[bytes]:
    """Read the bytes start…end of files in one object store with concurrent requests."""
    if not ranges:
        return []
    fs, _ = file_system(ranges[0][0])
    keys = [file_system(path)[1] for path, _, _ in ranges]
    with report_storage_errors(ranges[0][0]):
        pieces: list[bytes] = fs.cat_ranges(keys, [r[1] for r in ranges], [r[2] for r in ranges], on_error="raise")
    return pieces


def is_litter(name: str) -> bool:
    """Return whether a file or one of its folders is litter of an operating system: `._a.h5`, `.DS_Store`, `.nfs…`.

    Args:
        name: relative, with forward slashes.
    """
    return _LITTER.search(name) is not None


def list_files(folder: Path) -> dict[str, int]:
    """List every file below a folder: name relative to it, with forward slashes, sorted -> bytes. {} where there is no
    folder.

    What systems leave in folders is not among them: it is no part of a cache.
    """
    return {name: size for name, size in _list_every_file(folder).items() if not is_litter(name)}


def _list_every_file(folder: Path) -> dict[str, int]:
    if not is_remote(folder):
        found = {p.relative_to(folder).as_posix(): p for p in _walk(folder) if p.is_file()}
        return {name: found[name].stat().st_size for name in sorted(found)}
    fs, key = file_system(folder)
    entries: dict[str, Any] = {}
    with report_storage_errors(folder), _ignore_missing():
        entries = fs.find(key, detail=True)
    return {name[len(key) + 1 :]: int(entries[name]["size"]) for name in sorted(entries) if name.startswith(key + "/")}


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; links to folders are not followed. Raises OSError where one may not be read."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # it may vanish meanwhile, or never have been
            raise error

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names)


def remove_file(path: Path) -> None:
    """Remove a file, if it exists."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    fs, key = file_system(path)
    with report_storage_errors(path), _ignore_missing():
        fs.rm_file(key)


def remove_folder(folder: Path) -> None:
    """Remove a folder and everything in it, if it exists."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in _list_every_file(folder):
        remove_file(folder / name)


def is_same_folder(a: Path, b: Path) -> bool:
    """Return whether two paths are one folder."""
    if is_remote(a) or is_remote(b):
        return str(a) == str(b)
    return a.exists() and b.exists() and a.samefile(b)
