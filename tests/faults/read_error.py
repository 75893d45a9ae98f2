"""A disk that fails in the middle of a file: that scan is on the failure list; once the disk reads again, the same bytes.

A library loaded before libc's own `read` (read_error.c, compiled here) answers EIO after the first 2 KB of one scan. Without
a C compiler a folder stands in place of the file, which cannot be read either. Which one it was is printed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from scenario import Fault, build, compare, expect, prepare, run_scenario

NAME = "scan070.obj"


def scenario(folder: Path) -> str:
    scans, whole, _ = prepare(folder)
    library = folder / "read_error.so"
    path = scans / NAME
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is not None:
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        environment = {"LD_PRELOAD": str(library), "FAULT_FILE": NAME}
        expect(build(scans, folder / "c", environment=environment), 1)
        how = "EIO after 2 KB of one file"
    else:
        path.rename(folder / NAME)
        path.mkdir()
        expect(build(scans, folder / "c"), 1)
        path.rmdir()
        (folder / NAME).rename(path)
        how = "a folder in place of one file (no C compiler)"
    failures = (folder / "c" / "failures.csv").read_text().splitlines()[1:]
    if len(failures) != 1 or NAME not in failures[0]:
        raise Fault(f"expected {NAME} on the failure list, found {failures}")
    expect(build(scans, folder / "c"), 0)  # the file is as it was, and yet it is tried again
    compare(folder / "c", whole)
    return f"{how}: {failures[0].split(',', 2)[2]!r}; then the same bytes"


if __name__ == "__main__":
    run_scenario(scenario)
