"""The lock of a cache in an object store: an object that only one process can create (If-None-Match), and that it renews.

Ages are measured by the store's own clock (its Date against its Last-Modified). A holder that dies leaves the object behind; it
is taken over (by If-Match, so that only one can) once it was not renewed for EXPIRY_SECONDS, or at once where its process is
known to have ended on this machine.
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
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from shared.errors import CacheError
from shared.store.paths import file_system, is_missing_bucket, report_storage_errors

RENEWAL_SECONDS = 15.0
EXPIRY_SECONDS = 75.0


@contextmanager
def hold_remote_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock object: renew it in the background until the block ends, then remove it.

    Args:
        what: begins the refusal: what somebody else is writing.
    Raises:
        CacheError: someone else holds it, or took it over because this process did not renew it for too long.
        StorageError: the object store cannot be reached or refuses.
    """
    lock = _Lock(path)
    with report_storage_errors(path):
        lock.acquire(what)
    renewal = threading.Thread(target=lock.renew, daemon=True)
    renewal.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lock.is_lost:  # else `renew` interrupted
            raise
    finally:
        lock.released.set()
        renewal.join()
        if not lock.is_lost:
            with report_storage_errors(path):
                lock.remove()
    if lock.is_lost:
        raise CacheError(
            f"{path}: another build took this cache over, as this one did not renew its lock for {EXPIRY_SECONDS:.0f} s"
        )


class _Lock:
    """The lock object of one holder."""

    def __init__(self, path: Path) -> None:
        self._fs, self._name = file_system(path)
        self._path = path
        bucket, _, key = self._name.partition("/")
        self._address = {"Bucket": bucket, "Key": key}
        self._etag = ""
        self.is_lost = False
        self.released = threading.Event()

    def acquire(self, what: str) -> None:
        """Make the object, or take it over from a holder that is gone. Raises CacheError where somebody holds it."""
        for _ in range(3):  # it may be released or taken between two requests
            try:
                self._put(IfNoneMatch="*")
            except FileExistsError:
                found = self._read()
                if found is None:
                    continue
                owner, age_seconds, etag = found
                if age_seconds < EXPIRY_SECONDS and not _has_ended(owner):
                    raise CacheError(
                        f"{what}; it runs on {owner.get('host', 'an unknown machine')} and was there {age_seconds:.0f} s ago: "
                        f"wait until it has ended, or, if it was killed, for {EXPIRY_SECONDS - age_seconds:.0f} s"
                    ) from None
                try:
                    self._put(IfMatch=etag)
                except FileExistsError:
                    continue
            self._check_conditions()
            return
        raise CacheError(f"{what}; it started this moment: wait until it has ended")

    def renew(self) -> None:
        """Renew the object until it is released; interrupt the main thread if another took it over."""
        wait_seconds = RENEWAL_SECONDS
        while not self.released.wait(wait_seconds):
            try:
                self._put(IfMatch=self._etag)
                wait_seconds = RENEWAL_SECONDS
            except FileExistsError:
                self.is_lost = True
                _thread.interrupt_main()
                return
            except Exception:  # the store does not answer: tried again; the next successful put shows who holds it
                wait_seconds = RENEWAL_SECONDS / 3

    def remove(self) -> None:
        self._fs.rm_file(self._name)

    def _put(self, **condition: str) -> None:
        """Write the object if the condition holds. Raises FileExistsError where it does not."""
        body = json.dumps({**_identify(), "token": secrets.token_hex(8)}).encode()
        try:
            self._etag = self._fs.call_s3("put_object", **self._address, Body=body, **condition)["ETag"]
        except OSError as error:
            is_gone = "IfMatch" in condition and isinstance(error, FileNotFoundError) and not is_missing_bucket(error)
            if is_gone or "condition" in str(error).lower():
                raise FileExistsError(str(error)) from error
            raise

    def _read(self) -> tuple[dict[str, Any], float, str] | None:
        """Return the holder, the seconds since it last renewed the object, and its tag; None where the object is gone."""
        try:
            answer = self._fs.call_s3("head_object", **self._address)
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            owner = json.loads(self._fs.cat_file(self._name))
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise
            return None
        except ValueError:
            owner = {}
        return (
            (owner if isinstance(owner, dict) else {}),
            (now - answer["LastModified"]).total_seconds(),
            answer["ETag"],
        )

    def _check_conditions(self) -> None:
        """Warn where the store takes a conditional put as a plain one: then nothing is protected."""
        try:
            self._put(IfNoneMatch="*")
        except FileExistsError:
            return
        print(
            f"note: {self._path}: this object store knows no conditional puts, which keep two builds apart; run one at a time"
        )


def _identify() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def _machine() -> str:
    """Return an identifier of this boot and process namespace; "" where the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Return the start time of a process, in the kernel's ticks; "" where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _has_ended(owner: dict[str, Any]) -> bool:
    machine, pid = owner.get("machine"), owner.get("pid")
    if not machine or machine != _machine() or not isinstance(pid, int):
        return False
    return _start_time(pid) != owner.get("started")
