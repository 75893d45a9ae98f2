"""Lock a file, so that only one process writes at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from shared.errors import FacetError

# NFS without lockd, Lustre without -o flock, FUSE and network file systems
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.EPERM}


def _open(path: Path) -> IO[bytes]:
    """Open the lock file without changing it: in a received folder it may be a link to any file of the user's.

    Raises:
        FacetError: it is no plain file.
    """
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
            raise FacetError(f"{path}: is not a plain file; remove it and run the same command again") from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise FacetError(f"{path}: is not a plain file; remove it and run the same command again")
    return os.fdopen(number, "rb+")


@contextmanager
def hold_lock(path: Path, refusal: FacetError | None = None) -> Iterator[None]:
    """Hold the lock file, created where it is missing; the kernel releases it when the process ends.

    Raises:
        FacetError: `refusal` itself, when another process holds it (without one, it is waited for); or the file system cannot
            lock: then nothing is written, as nothing would keep two writers apart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if refusal is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            assert refusal is not None  # without one, flock waits
            raise refusal from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise FacetError(
                    f"{path.parent}: its file system cannot lock files ({error.strerror}), which keeps two writers apart; "
                    "write to a local disk and copy the result, or have it mounted with locks (NFS: lockd; Lustre: -o flock)"
                ) from error
            error.filename = str(path)
            raise
        yield
