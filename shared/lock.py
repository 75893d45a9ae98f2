"""One writer at a time: a file that a process holds for as long as it lives."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import FacetError


@contextmanager
def hold_lock(path: Path, refusal: FacetError | None = None) -> Iterator[None]:
    """Holds the lock file, made with its folder where it is missing; the kernel lets go of it when the process ends, however.

    Raises:
        FacetError: `refusal` itself, when another process holds it. Without one, it is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if refusal is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            assert refusal is not None  # without one, flock waits
            raise refusal from error
        yield
