"""Installs the peers into a virtual environment of their own, which sees this project's torch, zarr and h5py too."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from shared.errors import FacetError

REQUIREMENTS = ("webdataset>=0.2.100", "litdata>=0.2.40", "mosaicml-streaming>=0.11", "datasets>=3")


def install_peers(folder: Path) -> Path:
    """The Python of the peers' virtual environment, made where it is not there yet.

    Raises:
        FacetError: it cannot be made, or pip fails; the last line is quoted.
    """
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join((sysconfig.get_path("purelib"), *REQUIREMENTS))
    if mark.is_file() and mark.read_text() == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
    site = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], "start its Python")
    # torch alone is gigabytes: what is installed already is found after the environment's own packages.
    (Path(site) / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS], "install the peers")
    mark.write_text(wanted)
    return python


def _run(command: list[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise FacetError(f"cannot {what}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return done.stdout.strip()
