"""Installs the peers into a folder of their own: a virtual environment, and Mesa's Vulkan driver where the machine has none."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shared.errors import FacetError

# pyrender 0.1.45 pins a PyOpenGL and pulls a networkx that Python 3.11 cannot import: its dependencies are named here instead.
REQUIREMENTS = (
    *(
        "pyvista>=0.44",
        "trimesh>=4",
        "networkx>=3",
        "PyOpenGL>=3.1.7",
        "pyglet<2",
        "freetype-py",
        "imageio",
        "scipy",
        "six",
    ),
)
WITHOUT_DEPENDENCIES = ("pyrender==0.1.45",)
DEBIAN_PACKAGES = ("libvulkan1", "mesa-vulkan-drivers")
VULKAN_DRIVER = "libvulkan_lvp.so"


def install_peers(folder: Path) -> Path:
    """The Python of the peers' virtual environment, made where it is not there yet.

    Raises:
        FacetError: pip fails; its last line is quoted.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run([*pip, *REQUIREMENTS], "install PyVista")
    _run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES], "install pyrender")
    return python


def vulkan_environment(folder: Path) -> dict[str, str]:
    """Variables for a process that draws with Mesa's software Vulkan; unpacked below `folder` where the system has none.

    Raises:
        FacetError: there is none and Debian's packages cannot be fetched.
    """
    try:
        ctypes.CDLL("libvulkan.so.1")
        if Path("/usr/share/vulkan/icd.d").is_dir():
            return {}
    except OSError:
        pass
    libraries = folder / "debian" / "usr" / "lib" / "x86_64-linux-gnu"
    if not (libraries / VULKAN_DRIVER).exists():
        _unpack_debian(folder / "debian")
    manifest = folder / "lavapipe.json"
    driver = {"api_version": "1.3.0", "library_path": str(libraries / VULKAN_DRIVER)}
    manifest.write_text(json.dumps({"ICD": driver, "file_format_version": "1.0.0"}))
    paths = [str(libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": ":".join(paths), "VK_ICD_FILENAMES": str(manifest), "VK_DRIVER_FILES": str(manifest)}


def _unpack_debian(folder: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FacetError(
            f"no Vulkan on this machine: install {' and '.join(DEBIAN_PACKAGES)}, or their like, and run again"
        )
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", *DEBIAN_PACKAGES], "fetch Mesa's Vulkan driver (try `apt-get update`)", archives)
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(archive), str(folder)], f"unpack {archive.name}")


def _run(command: list[str], what: str, working_folder: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=working_folder)
    if done.returncode != 0:
        raise FacetError(f"cannot {what}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
