"""Worker processes of this machine, as a dask cluster of their own that nobody else on it can talk to."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dask
import distributed
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from shared.errors import FacetError, shorten

# One worker's libraries stay on one thread: there is a worker a core.
SINGLE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS", "NUMBA_NUM_THREADS")
MEMORY_SHARE = 0.95  # of its limit, at which a worker is stopped
STARTS = 4  # a machine too busy to start its workers in time is asked again
LOCAL_SETTINGS = {
    # A worker holds no results that could be spilled; one that paused for its memory would wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": MEMORY_SHARE,
    # Local workers are watched by their parents; by the clock, one set forward would declare them all dead.
    "distributed.scheduler.worker-ttl": None,
    "distributed.worker.preload": ["preprocess.build.scheduler"],
    # Workers that watch themselves a hundred times a second render a tenth slower (tests/benchmarks/RESULTS.md).
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(SINGLE_THREAD, "1"),
}


@contextmanager
def start_workers(num_processes: int, memory_bytes: int | None) -> Iterator[distributed.Client]:
    """A client of a scheduler in this process with worker processes of its own, stopped at the end.

    Args:
        memory_bytes: of a worker, one above it is stopped; None: an equal share of the machine's.
    Raises:
        FacetError: the workers do not start.
    """
    memory = {} if memory_bytes is None else {"memory_limit": memory_bytes}
    for start in range(1, STARTS + 1):
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(LOCAL_SETTINGS))
            try:
                cluster = distributed.LocalCluster(
                    n_workers=num_processes,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address=None,
                    security=make_keys(),
                    silence_logs=logging.CRITICAL,
                    **memory,
                )
                client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
            except (RuntimeError, OSError, TimeoutError) as error:
                if start < STARTS:
                    continue
                reason = shorten(" ".join(str(error).split()), 200)
                raise FacetError(
                    f"worker processes cannot be started ({reason}); run the same command again, or with --workers 1"
                ) from error
            yield client
            return


def make_keys() -> Security:
    """Keys made for this build alone, never written to the disk.

    dask's own temporary ones are valid from this second on: a clock that is put back while workers start would refuse them.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "facet-build")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1970, 1, 1))
        .not_valid_after(datetime.datetime(2199, 1, 1))
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    roles = {
        f"tls_{role}_{part}": text
        for role in ("client", "scheduler", "worker")
        for part, text in (("key", private), ("cert", public))
    }
    return Security(require_encryption=True, tls_ca_file=public, **roles)
