"""A clock that jumps by weeks while a build runs, and files from the future and the past: the cache is byte-identical.

A library loaded before libc's own clock functions (clock_jumps.c, compiled here) moves the wall clock 40 days ahead and back
again every few calls; without a C compiler only the files' times jump. Which one it was is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from scenario import Fault, build, cache_bytes, compare, expect, prepare, run_scenario, write_scan

FUTURE, PAST = 4_102_444_800, 86_400  # 2100-01-01 and 1970-01-02, seconds


def scenario(folder: Path) -> str:
    scans, whole, _ = prepare(folder)
    library = folder / "clock_jumps.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    environment = {}
    if compiler is not None:
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        environment = {"LD_PRELOAD": str(library)}
    cache = folder / "c"
    expect(build(scans, cache, environment=environment), 0)
    compare(cache, whole)
    for seconds in (FUTURE, PAST):  # everything, sources, notes and the cache itself
        for path in [*scans.iterdir(), *(p for p in cache.rglob("*") if p.is_file())]:
            os.utime(path, (seconds, seconds))
        result = build(scans, cache, environment=environment)
        expect(result, 0)
        if "nothing to do" not in result.stdout:
            raise Fault("unchanged scans with other times were rendered again")
        compare(cache, whole)
    write_scan(scans, "scan070", 9.0)  # changed, and older than its own cache
    os.utime(scans / "scan070.obj", (PAST - 3600, PAST - 3600))
    expect(build(scans, cache, environment=environment), 0)
    expect(build(scans, folder / "fresh"), 0)
    compare(cache, cache_bytes(folder / "fresh"))
    if cache_bytes(cache) == whole:
        raise Fault("a scan that changed while the clock was wrong was not noticed")
    how = "the wall clock jumped by 40 days" if environment else "no C compiler: only files' times jumped"
    return f"{how}, files from 1970 and 2100; the same bytes, and a changed scan was noticed"


if __name__ == "__main__":
    run_scenario(scenario)
