"""A reader of folders of scans with faults that Python cannot catch, for tests of what becomes of a worker.

What a scan does stands in its file's first line: `# abort` ends the process as a fault of a native library does, `# abort
unless FILE` only as long as FILE is not there, `# takes 900 MB` takes as much memory for a while, `# killed once, FILE` ends it
as an operator's kill -9 does, once, and makes FILE.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from pathlib import Path

import numpy as np

from preprocess.datasets import DATASETS
from preprocess.datasets.scan import ScanRecord
from preprocess.geometry.mesh import Mesh

FOLDER = DATASETS["folder"]


def read_or_crash(root: Path, scan: ScanRecord) -> Mesh:
    with (root / scan.source).open() as file:
        words = file.readline()
    if found := re.match(r"# killed once, (.+)", words):
        if not Path(found[1]).exists():
            Path(found[1]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif found := re.match(r"# abort unless (.+)", words):
        if not Path(found[1]).exists():
            os.abort()
    elif found := re.match(r"# takes (\d+) MB", words):
        np.ones(int(found[1]) * 10**6, np.uint8).sum()
    elif words.startswith("# abort"):
        os.abort()
    return FOLDER.read(root, scan)


CRASHING = dataclasses.replace(FOLDER, read=read_or_crash)


def mark(path: Path, words: str) -> None:
    """Makes a scan do what the first line of its file says."""
    path.write_text(f"{words}\n{path.read_text()}")
