"""The plan of a build as a file in the cache's .build folder: a task names a shard by its number, its worker reads the rest.

Layout: a line `facet plan 1 <sha256 of the index>`; the index's length in 12 digits and a line feed; the index, JSON:
`software` and `shards`, a list of [shard, offset, length, sha256]; then one compressed pickle of a ShardTask a shard, offsets
counted from the index's end. A worker unpickles only bytes whose sha256 it was told by way of the scheduler, which could run
any code in it anyway.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import socket
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from preprocess.build.cache_folder import software_versions
from preprocess.build.sources import ShardTask
from shared.errors import FacetError
from shared.store.paths import read_range, remove_file
from shared.store.storage import write_file

PLAN = "plan"
_MAGIC = "facet plan 1"
_DIGITS = 12
_HEAD = len(_MAGIC) + 1 + 64 + 1 + _DIGITS + 1


def plan_path(cache: Path) -> Path:
    return cache / ".build" / PLAN


def write_plan(cache: Path, tasks: Iterable[ShardTask]) -> str:
    """Writes the tasks of a build for its workers. Returns the plan's digest, which says of a plan file that it is this one."""
    rows: list[tuple[int, int, int, str]] = []
    pieces: list[bytes] = []
    offset = 0
    for task in tasks:
        piece = zlib.compress(pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL), 1)
        rows.append((task.shard, offset, len(piece), hashlib.sha256(piece).hexdigest()))
        pieces.append(piece)
        offset += len(piece)
    index = json.dumps({"software": software_of_workers(), "shards": rows}).encode()
    digest = hashlib.sha256(index).hexdigest()
    write_file(plan_path(cache), b"".join([_first_line(digest), f"{len(index):0{_DIGITS}}\n".encode(), index, *pieces]))
    return digest


def read_task(cache: Path, digest: str, shard: int) -> ShardTask:
    """One shard of the plan with this digest.

    Raises:
        FacetError: this machine does not see the plan, another build has written its own, it is damaged, or this machine
            runs other software than the one that planned, whose bytes may differ.
    """
    path = plan_path(cache)
    damaged = FacetError(f"{path}: damaged; run the same build again")
    try:
        head = read_range(path, 0, _HEAD)
        if head[: len(_first_line(digest))] != _first_line(digest):
            raise FacetError(f"{path}: is of another build, which has taken this cache over")
        length = head[len(_first_line(digest)) :]
        if len(length) != _DIGITS + 1 or not length[:_DIGITS].isdigit():
            raise damaged
        start = _HEAD + int(length)
        index = read_range(path, _HEAD, start)
        if hashlib.sha256(index).hexdigest() != digest:
            raise damaged
        software, shards = _parse_index(index)
        offset, length_, piece_digest = shards[shard]
        piece = read_range(path, start + offset, start + offset + length_)
    except FileNotFoundError as error:
        raise FacetError(
            f"{path}: a worker on {socket.gethostname()} does not see it: --cache and --root must lie where every worker's "
            "machine finds them under the same path; or the build that planned it has ended"
        ) from error
    if hashlib.sha256(piece).hexdigest() != piece_digest:
        raise damaged
    _check_software(software)
    task = pickle.loads(zlib.decompress(piece))
    assert isinstance(task, ShardTask) and task.shard == shard
    return task


def check_current(cache: Path, digest: str) -> None:
    """Makes sure that the build which made the plan still is the one that writes the cache.

    Raises:
        FacetError: another build has taken over, or the plan's own has ended.
    """
    expected = _first_line(digest)
    try:
        current = read_range(plan_path(cache), 0, len(expected)) == expected
    except FileNotFoundError:
        current = False
    if not current:
        raise FacetError(f"{cache}: another build has taken this cache over; a late worker of the former wrote nothing")


def remove_plan(cache: Path) -> None:
    remove_file(plan_path(cache))


def _first_line(digest: str) -> bytes:
    return f"{_MAGIC} {digest}\n".encode()


@lru_cache(maxsize=1)
def _parse_index(index: bytes) -> tuple[dict[str, str], dict[int, tuple[int, int, str]]]:
    value: dict[str, Any] = json.loads(index)
    return value["software"], {shard: (offset, length, digest) for shard, offset, length, digest in value["shards"]}


@lru_cache(maxsize=1)
def software_of_workers() -> dict[str, str]:
    """What must be the same on every worker, so that it does not matter which of them renders a shard."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in (package, package.parent / "shared"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return {**software_versions(), "this program": digest.hexdigest()[:12]}


def _check_software(expected: Mapping[str, str]) -> None:
    own = software_of_workers()
    if own != expected:
        names = [name for name in {**expected, **own} if own.get(name) != expected.get(name)]
        differences = ", ".join(
            f"{name} {own.get(name, 'none')} instead of {expected.get(name, 'none')}" for name in names
        )
        raise FacetError(
            f"a worker on {socket.gethostname()} has {differences}: its images might differ; install the same everywhere"
        )
