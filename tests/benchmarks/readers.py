"""Milliseconds from a file to arrays: this project's readers beside NumPy's text parser and other libraries on the same files.

Run from anywhere:  .venv/bin/python tests/benchmarks/readers.py
Exit code 0 when a frame of BU-4DFE's size (VRML and JPEG) takes less than 35 ms of one core. The peers trimesh and meshio go
into a temporary folder; without a package index they are left out. CPU time, the least of all rounds, in turns: other work on
the machine slows all alike. The C library is told to keep freed memory (see `keep_freed_memory`).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from benchmarks.full_size import make_mesh
from written_glb import WrittenGlb

from preprocess.geometry.mesh import Mesh
from preprocess.readers.glb import read_glb
from preprocess.readers.image import read_image
from preprocess.readers.obj import read_obj
from preprocess.readers.stl import read_stl
from preprocess.readers.vrml import read_vrml
from preprocess.synth.obj import write_textured_obj
from preprocess.synth.wrl import encode_bu4dfe_wrl

ROUNDS = 25
MAX_MS = 35.0
_COMMA_TO_BLANK = bytes.maketrans(b",", b" ")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mesh, uv = make_mesh()
        (folder / "frame.wrl").write_bytes(encode_bu4dfe_wrl(mesh, uv, "frame.jpg"))
        write_textured_obj(folder, "frame", mesh, uv, slashes=True)
        (folder / "untextured").mkdir()
        for suffix in ("obj", "wrl"):
            shutil.copy(folder / f"frame.{suffix}", folder / "untextured")
        untextured = folder / "untextured" / "frame.obj"
        stl, glb = folder / "frame.stl", write_glb(folder, mesh, uv)
        corners = np.zeros(len(mesh.triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("color", "<u2")])
        corners["corners"] = mesh.vertices_mm[mesh.triangles]
        stl.write_bytes(bytes(80) + len(corners).to_bytes(4, "little") + corners.tobytes())
        wrl, obj, jpg = (folder / f"frame.{suffix}" for suffix in ("wrl", "obj", "jpg"))
        for path in (wrl, obj, jpg):
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        sys.path.append(str(install_peers(folder / "peers")))
        milliseconds = measure(
            {
                "VRML, this project": lambda: read_vrml(untextured.with_suffix(".wrl")),
                "VRML, numpy.fromstring": lambda: parse_vrml_numpy(wrl),
                "OBJ, this project": lambda: read_obj(untextured),
                "OBJ, numpy.fromstring": lambda: parse_obj_numpy(obj),
                **peers(untextured, "OBJ"),
                "STL, this project": lambda: read_stl(stl),
                **peers(stl, "STL"),
                "GLB, this project": lambda: read_glb(glb),
                **peers(glb, "GLB"),
                "JPEG": lambda: read_image(jpg),
                "VRML and JPEG": lambda: read_vrml(wrl, texture=jpg),
                "OBJ and JPEG": lambda: read_obj(obj, texture=jpg),
            }
        )
        base = {kind: milliseconds[f"{kind}, this project"] for kind in ("VRML", "OBJ", "STL", "GLB")}
        for label, value in milliseconds.items():
            own = base.get(label.split(",")[0])
            print(f"{label:26} {value:8.1f} ms" + (f"  {value / own:6.1f} ×" if own and "," in label else ""))
    return 0 if milliseconds["VRML and JPEG"] < MAX_MS else 1


def keep_freed_memory() -> None:
    """Freed arrays stay with the process: without this, half the time goes into page faults of new ones."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def install_peers(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(folder),
        "trimesh",
        "meshio",
        "rich",
    ]
    if subprocess.run(command, capture_output=True).returncode:
        print("trimesh and meshio cannot be installed here: left out")
    return folder


def write_glb(folder: Path, mesh: Mesh, uv: np.ndarray) -> Path:
    """Without its image, which takes as long in every format."""
    glb = WrittenGlb()
    position, place = glb.accessor(mesh.vertices_mm.astype("<f4")), glb.accessor(uv.astype("<f4"))
    glb.primitive(POSITION=position, TEXCOORD_0=place, indices=glb.accessor(mesh.triangles.astype("<u4").ravel()))
    return glb.write(folder)


def peers(file: Path, kind: str) -> dict[str, Callable[[], object]]:
    import open3d  # type: ignore[import-untyped]

    path: Any = str(file)
    found: dict[str, Callable[[], object]] = {
        f"{kind}, open3d": lambda: open3d.io.read_triangle_mesh(path, enable_post_processing=False)
    }
    try:
        import trimesh

        options: dict[str, Any] = {"skip_materials": True} if kind == "OBJ" else {}
        found[f"{kind}, trimesh"] = lambda: trimesh.load_mesh(file, process=False, **options)
    except ImportError:
        pass
    try:
        import meshio  # type: ignore[import-not-found]

        if kind != "GLB":  # which it does not read
            found[f"{kind}, meshio"] = lambda: meshio.read(file)
    except ImportError:
        pass
    return found


def measure(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least CPU time of each, ms; slow ones run fewer times."""
    best = dict.fromkeys(tasks, float("inf"))
    for task in tasks.values():
        task()
    for k in range(ROUNDS):
        for label, task in tasks.items():
            if k < 3 or best[label] < 200:
                started = time.process_time()
                task()
                best[label] = min(best[label], 1e3 * (time.process_time() - started))
    return best


def parse_vrml_numpy(path: Path) -> list[np.ndarray]:
    """Number parsing alone, as plain NumPy code does it: lists cut out by a pattern, commas blanked, np.fromstring."""
    data = path.read_bytes()
    numbers = []
    for match in re.finditer(rb"(point|\w*[iI]ndex)\s*\[([^\]]*)\]", data):
        dtype = np.float64 if match[1] == b"point" else np.int64
        numbers.append(np.fromstring(match[2].translate(_COMMA_TO_BLANK).strip(), dtype, sep=" "))
    return numbers


def parse_obj_numpy(path: Path) -> list[np.ndarray]:
    """The lines by a pattern, slashes blanked, np.fromstring; every corner has to be `a/b`."""
    data = path.read_bytes()
    rows = {key: re.findall(rb"(?m)^" + key + rb" ([^\r\n#]*)", data) for key in (b"v", b"vt", b"f")}
    return [
        np.fromstring(b" ".join(rows[b"v"]), np.float64, sep=" "),
        np.fromstring(b" ".join(rows[b"vt"]), np.float64, sep=" "),
        np.fromstring(b" ".join(rows[b"f"]).replace(b"/", b" "), np.int64, sep=" "),
    ]


if __name__ == "__main__":
    sys.exit(main())
