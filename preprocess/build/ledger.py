"""The builder's private notes in a cache's .build folder: one JSON file per shard, the id of the current build,
and the options of the last one.

A shard's note counts the processes that began the shard and crashed. Its quarantined scans are not rendered again until their
files change. A hash over sizes and times of the source files spares a second build from reading them.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import CacheError, FacetError
from shared.schema import canonical_json
from shared.store.paths import read_bytes, remove_file
from shared.store.storage import write_file
from shared.typed_json import make

BUILD_TOML = ".build/build.toml"  # options of the last build, for --config


@dataclass(frozen=True)
class ShardNote:
    """What the builder remembers about one shard."""

    num_crashed: int = 0  # processes that began the shard and ended without a result
    quarantined: dict[str, tuple[str, str]] = field(default_factory=dict)  # sample_id → hash of its sources, reason
    finished: str = ""  # hash over the record's inputs and the sizes and times of all source files (`hash_times`)


def note_path(cache: Path, shard: int) -> Path:
    return cache / ".build" / f"shard-{shard:05d}.json"


def read_note(cache: Path, shard: int) -> ShardNote:
    """Return a shard's note; one that counts a crash where the note is damaged."""
    try:
        return make(ShardNote, json.loads(read_bytes(note_path(cache, shard))))
    except FileNotFoundError:
        return ShardNote()
    except (ValueError, RecursionError):
        return ShardNote(num_crashed=1)


def write_note(cache: Path, shard: int, note: ShardNote) -> None:
    write_file(note_path(cache, shard), canonical_json(dataclasses.asdict(note)).encode())


def clear_crashes(cache: Path, shard: int) -> None:
    """Note that the process which began a shard was stopped on purpose."""
    note = read_note(cache, shard)
    if note.num_crashed:
        write_note(cache, shard, dataclasses.replace(note, num_crashed=0))


@contextmanager
def claim_build(cache: Path) -> Iterator[str]:
    """Yield an id for this build, valid until the block ends or another build claims the cache."""
    path, build_id = cache / ".build" / "current", uuid.uuid4().hex
    write_file(path, build_id.encode())
    try:
        yield build_id
    finally:
        remove_file(path)


def check_current(cache: Path, build_id: str) -> None:
    """Make sure that a build still owns its cache: a worker may outlive it.

    Raises:
        FacetError: another build has claimed the cache, the build has ended, or this machine does not see the cache.
    """
    try:
        current = read_bytes(cache / ".build" / "current").decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        raise FacetError(
            f"{cache}: a worker on {socket.gethostname()} does not see this build: --cache and --root must have the same path "
            "on every worker's machine; or the build has ended"
        ) from None
    if current != build_id:
        raise CacheError(f"{cache}: another build writes this cache now; a late worker of the former one wrote nothing")
