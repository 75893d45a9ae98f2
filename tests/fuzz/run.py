"""Reads damaged files of every format, and damaged folders, and says what came of each: a scan, an error of one line, or a bug.

.venv/bin/python tests/fuzz/run.py --mutations 120000 --minutes 30 [--only WRL,GLB] [--skip …] [--seed 0]
.venv/bin/python tests/fuzz/run.py --show "GLB 1234" --keep DIR     writes the files of one case to DIR and reads them
Every case follows from the seed, its format and its number. Children may take 2 GB beyond what they have at first, and
5 s a case; an audit hook notes files opened outside the case's folder. Exit code 0 when no bug was found, else 1.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mutations", type=int, default=120_000, help="damaged files in all, shared out over the formats"
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="formats, parted by commas")
    parser.add_argument("--skip", default="", help="formats, parted by commas")
    parser.add_argument("--show", default="", help="one case: format and number")
    parser.add_argument("--keep", type=Path, help="where --show writes the case")
    arguments = parser.parse_args()

    from fuzz.folders import folder_targets
    from fuzz.received import received_targets
    from fuzz.sandbox import run_target
    from fuzz.targets import file_targets

    targets = [*file_targets(), *folder_targets(with_images="mesh to images" not in arguments.skip)]
    targets += received_targets()
    if arguments.show:
        name, _, case = arguments.show.rpartition(" ")
        target = next(target for target in targets if target.name == name)
        folder = arguments.keep / "outer" / "case"
        path = target.prepare(random.Random(f"{arguments.seed} {name} {case}"), int(case), folder)
        print(path)
        print(target.read(path))
        return 0
    if arguments.only:
        names = arguments.only.split(",")
        targets = [target for target in targets if target.name in names]
    targets = [target for target in targets if target.name not in arguments.skip.split(",")]
    deadline = time.monotonic() + 60 * arguments.minutes
    total = sum(target.share for target in targets)
    num_bugs = num_cases = 0
    print("| format | cases | read | refused | bugs | peak MB | cases/s |\n|---|---|---|---|---|---|---|")
    for target in targets:
        shm = Path("/dev/shm")
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=shm if shm.is_dir() else None) as folder:
            count = max(round(arguments.mutations * target.share / total), 1)
            tally = run_target(target, range(count), Path(folder), seed=arguments.seed, deadline=deadline)
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
        bugs = sum(tally.findings.values())
        rate = tally.cases / max(tally.seconds, 1e-9)
        print(
            f"| {target.name} | {tally.cases:,} | {tally.read:,} | {tally.refused:,} | {bugs} | {tally.peak_bytes / 1e6:,.0f} "
            f"| {rate:,.0f} |",
            flush=True,
        )
        num_bugs, num_cases = num_bugs + bugs, num_cases + tally.cases
        for example in tally.examples:
            print(example, file=sys.stderr, flush=True)
    print(f"| all | {num_cases:,} | | | {num_bugs} | | |")
    return 1 if num_bugs else 0


if __name__ == "__main__":
    raise SystemExit(main())
