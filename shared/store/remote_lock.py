"""One writer at a time in an object store: an object that its holder renews, made by a conditional put (If-None-Match).

Ages are told by the store's own clock alone (its Date against its Last-Modified), so it does not matter what any machine's
clock says or does. A holder that dies leaves the object behind; it is taken over (by If-Match, so that only one can) once it
has not been renewed for EXPIRY_SECONDS, or at once where its process is seen to have ended on this machine.
"""

from __future__ import annotations

import _thread
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from shared.errors import CacheError
from shared.store.paths import file_system, report_storage_errors

RENEWAL_SECONDS = 15.0
EXPIRY_SECONDS = 75.0


@dataclass
class _Held:
    path: Path
    bucket: str
    key: str
    etag: str = ""
    lost: bool = False
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def hold_remote_lock(path: Path, *, what: str) -> Iterator[None]:
    """Holds the lock object; renewed in the background until the block ends, then removed.

    Args:
        what: begins the refusal: which thing somebody else is writing.
    Raises:
        CacheError: someone else holds it, or took it over because this process did not renew it for too long.
        StorageError: the object store cannot be reached or refuses.
    """
    fs, name = file_system(path)
    if "s3" not in fs.protocol:
        print(f"note: {path}: nothing keeps two builds apart here; run one at a time")
        yield
        return
    bucket, _, key = name.partition("/")
    held = _Held(path, bucket, key)
    with report_storage_errors(path):
        _acquire(fs, held, what)
    renewal = threading.Thread(target=_renew, args=(fs, held), daemon=True)
    renewal.start()
    try:
        yield
    except KeyboardInterrupt:
        if held.lost:
            raise _lost(held) from None
        raise
    finally:
        held.released.set()
        renewal.join()
        if not held.lost:
            with report_storage_errors(path):
                fs.rm_file(name)
    if held.lost:
        raise _lost(held)


def _lost(held: _Held) -> CacheError:
    return CacheError(
        f"{held.path}: another build took this cache over, as this one did not renew its lock for {EXPIRY_SECONDS:.0f} s"
    )


def _acquire(fs: Any, held: _Held, what: str) -> None:
    for _ in range(3):  # it may be released or taken between two requests
        try:
            held.etag = _put(fs, held, IfNoneMatch="*")
        except FileExistsError:
            found = _look(fs, held)
            if found is None:
                continue
            owner, age_seconds, etag = found
            if age_seconds < EXPIRY_SECONDS and not _has_ended(owner):
                raise CacheError(
                    f"{what}; it runs on {owner.get('host', 'an unknown machine')} and was there {age_seconds:.0f} s ago: "
                    f"wait until it has ended, or, if it was killed, for {EXPIRY_SECONDS - age_seconds:.0f} s"
                ) from None
            try:
                held.etag = _put(fs, held, IfMatch=etag)
            except FileExistsError:
                continue
        _warn_unconditional(fs, held)
        return
    raise CacheError(f"{what}; it started this moment: wait until it has ended")


def _put(fs: Any, held: _Held, **condition: str) -> str:
    """Writes the lock object if the condition holds; returns its new tag. Raises FileExistsError where it does not hold."""
    body = json.dumps({**_identity(), "token": secrets.token_hex(8)}).encode()
    try:
        answer = fs.call_s3("put_object", Bucket=held.bucket, Key=held.key, Body=body, **condition)
    except OSError as error:
        if isinstance(error, FileExistsError) or "condition" in str(error).lower():
            raise FileExistsError(str(error)) from error
        if condition.get("IfMatch") and isinstance(error, FileNotFoundError) and "bucket" not in str(error).lower():
            raise FileExistsError("released meanwhile") from error
        raise
    etag: str = answer["ETag"]
    return etag


def _look(fs: Any, held: _Held) -> tuple[dict[str, Any], float, str] | None:
    """Who holds the lock, for how many seconds they have not renewed it, and its tag. None where it is gone."""
    try:
        answer = fs.call_s3("head_object", Bucket=held.bucket, Key=held.key)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        owner = json.loads(fs.cat_file(f"{held.bucket}/{held.key}"))
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise
        return None
    except ValueError:
        owner = {}
    return (owner if isinstance(owner, dict) else {}), (now - answer["LastModified"]).total_seconds(), answer["ETag"]


def _warn_unconditional(fs: Any, held: _Held) -> None:
    """Some stores take a conditional put as a plain one; then nothing is protected, and the user is told."""
    try:
        held.etag = _put(fs, held, IfNoneMatch="*")
    except FileExistsError:
        return
    print(
        f"note: {held.path}: this object store knows no conditional puts, so nothing keeps two builds apart; run one at a time"
    )


def _renew(fs: Any, held: _Held) -> None:
    failures = 0
    while not held.released.wait(RENEWAL_SECONDS if not failures else RENEWAL_SECONDS / 3):
        try:
            held.etag = _put(fs, held, IfMatch=held.etag)
            failures = 0
        except FileExistsError:
            held.lost = True
            _thread.interrupt_main()
            return
        except Exception:  # the store does not answer: tried again, and the next successful put tells who holds it
            failures += 1


def _identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def _machine() -> str:
    """This boot of this machine, as processes that see each other's numbers see it; "" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _has_ended(owner: dict[str, Any]) -> bool:
    machine, pid = owner.get("machine"), owner.get("pid")
    if not machine or machine != _machine() or not isinstance(pid, int):
        return False
    return _start_time(pid) != owner.get("started")
