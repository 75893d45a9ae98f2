"""Two builds of one cache at once, several times: one writes, the other says so in one line; the cache is byte-identical."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from scenario import Fault, compare, expect, prepare, run_scenario, start

DELAYS_SECONDS = (0.0, 0.02, 0.3, 1.5)


def scenario(folder: Path) -> str:
    scans, whole, _ = prepare(folder)
    num_refused = 0
    for delay in DELAYS_SECONDS:
        cache = folder / f"c{delay}"
        first = start(scans, cache)
        time.sleep(delay)
        second = start(scans, cache)
        results = []
        for process in (first, second):
            stdout, stderr = process.communicate()
            results.append(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr))
        codes = sorted(result.returncode for result in results)
        if codes not in ([0, 2], [0, 0]):  # 0 and 0: the second one began when the first had ended
            raise Fault(f"exit codes {codes}: {[result.stderr for result in results]}")
        for result in results:
            expect(result, result.returncode, "another build is writing", str(cache))
        num_refused += codes[1] == 2
        compare(cache, whole)
    if not num_refused:
        raise Fault("the builds never met")
    return f"{num_refused} of {len(DELAYS_SECONDS)} met: one line each; the same bytes"


if __name__ == "__main__":
    run_scenario(scenario)
