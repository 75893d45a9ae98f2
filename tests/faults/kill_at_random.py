"""Kills a build with SIGKILL at 20 random moments, all of it or its coordinator alone; the next build must end byte-identical.

python tests/faults/kill_at_random.py [SEED]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from scenario import build, compare, expect, kill_group, prepare, run_scenario, start

MOMENTS = 20


def scenario(folder: Path) -> str:
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    scans, whole, seconds = prepare(folder)
    num_killed = num_finished = 0
    cache = folder / "c0"
    for moment in range(MOMENTS):
        process = start(scans, cache)
        time.sleep(rng.uniform(0, 1.1 * seconds))
        if process.poll() is not None:  # it was faster: its cache must be whole, and the next starts from nothing
            compare(cache, whole)
            num_finished += 1
            cache = folder / f"c{moment + 1}"
        elif moment % 3 == 2:
            process.kill()  # the coordinator alone: its workers must end by themselves
            process.communicate()
            num_killed += 1
        else:
            kill_group(process)
            num_killed += 1
    result = build(scans, cache)
    expect(result, 0)
    compare(cache, whole)
    return f"killed at {num_killed} moments, {num_finished} times already finished; the same bytes"


if __name__ == "__main__":
    run_scenario(scenario)
