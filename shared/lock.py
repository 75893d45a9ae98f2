"""One writer at a time: a file that a process holds for as long as it lives."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import FacetError

# NFS without lockd, Lustre without -o flock, FUSE file systems and shares of other systems
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.EPERM}


@contextmanager
def hold_lock(path: Path, refusal: FacetError | None = None) -> Iterator[None]:
    """Holds the lock file, made with its folder where it is missing; the kernel lets go of it when the process ends, however.

    Raises:
        FacetError: `refusal` itself, when another process holds it (without one, it is waited for); or the file system cannot
            lock: then nothing is written, as nothing would keep two writers apart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
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
