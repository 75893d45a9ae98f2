"""Who renders: this process, processes of this machine, or the workers of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workers:
    """Who renders. num_processes: on this machine, 1 = this process itself; unless a dask scheduler is given."""

    num_processes: int = 1
    memory_bytes: int | None = None  # of a local worker, None: an equal share of the machine's; one above it is stopped
    scheduler: str = ""  # tcp://host:port or tls://host:port
    scheduler_file: Path | None = None

    @property
    def remote(self) -> bool:
        return bool(self.scheduler) or self.scheduler_file is not None
