"""A scan that takes more memory than a worker may have: it is left out, the rest goes on; mended, the cache is byte-identical.

The reader of tests/crashing_reader.py really takes 2.5 GB for one scan; workers may have 1.2 GB.
"""

from __future__ import annotations

from pathlib import Path

from scenario import CRASHING, Fault, compare, mark, prepare, run_scenario

from preprocess.build.build import BuildReport, build_cache
from preprocess.build.executors import Workers
from preprocess.build.isolate import READING
from shared.cache import open_cache
from shared.schema import RenderSettings

WORKERS = Workers(num_processes=2, memory_bytes=1_200_000_000)


def scenario(folder: Path) -> str:
    scans, whole, _ = prepare(folder)
    path = scans / "scan070.obj"
    before = path.read_bytes()
    mark(path, "# takes 2500 MB")
    report = run(scans, folder / "c")
    invalid = [sample.sample_id for sample in open_cache(folder / "c").samples if not sample.valid]
    if invalid != ["scan070"] or report.failures[0].reason != READING:
        raise Fault(f"left out: {invalid}, {report.failures}")
    if not report.work.num_workers_died:
        raise Fault("no worker was stopped")
    if run(scans, folder / "c").num_rendered:
        raise Fault("the same scan was tried again")
    path.write_bytes(before)
    run(scans, folder / "c")
    compare(folder / "c", whole)
    return "one scan left out, the others rendered; mended, the same bytes"


def run(scans: Path, cache: Path) -> BuildReport:
    return build_cache(CRASHING, scans, cache, RenderSettings(size_px=32), workers=WORKERS)


if __name__ == "__main__":
    run_scenario(scenario)
