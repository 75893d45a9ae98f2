"""The renderers and the settings they are tried with."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.environment import install_peers, vulkan_environment
from benchmarks.peers.quality import Quality

from shared.errors import FacetError

NUM_CORES = len(os.sched_getaffinity(0))
NEAR_FASTEST = 0.75  # settings that survey this close to their renderer's fastest go on to the rounds

_PYVISTA = {
    "mipmaps": True,
    "interpolate": True,
    "anisotropy": 1,
    "multisampling": 0,
    "supersampling": 1,
    "cull": False,
}
_PYRENDER = {"filter": "trilinear", "supersampling": 1}
# Named by how they differ from the first of their renderer.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "ours": [
        {"supersampling": n, "geometry": geometry, "kept": kept}
        for geometry, kept in ((False, True), (False, False), (True, False))
        for n in (1, 3)
    ],
    # Left out: anisotropy, multisampling and supersampling, which were slower in earlier runs.
    "pyvista": [
        _PYVISTA,
        *(_PYVISTA | other for other in ({"cull": True}, {"mipmaps": False}, {"mipmaps": False, "interpolate": False})),
    ],
    "pyrender": [_PYRENDER, *(_PYRENDER | {"filter": name} for name in ("bilinear mipmap", "nearest"))],
    "open3d": [{"supersampling": n} for n in (1, 2)],
}


@dataclass
class Candidate:
    """A renderer at one setting, in one or many processes, and what it reached."""

    renderer: str
    settings: dict[str, Any]
    num_processes: int
    python: Path
    environment: dict[str, str]
    views_per_second: list[float] = field(default_factory=list)
    cpu_ms_per_view: list[float] = field(default_factory=list)
    quality: Quality | None = None

    @property
    def best(self) -> float:
        return max(self.views_per_second)

    @property
    def name(self) -> str:
        if self.renderer == "ours":
            drawn = "with normals and depth" if self.settings["geometry"] else "texture alone"
            text = f"{self.settings['supersampling']}² samples, {drawn}{', textures kept' * self.settings['kept']}"
        else:
            plain = SETTINGS[self.renderer][0]
            others = [f"{key} {value}" for key, value in self.settings.items() if value != plain[key]]
            text = ", ".join(others) or "plain"
        return f"{text}; {self.num_processes} process{'es' if self.num_processes > 1 else ''}"


def find_candidates(folder: Path, only: str) -> list[Candidate]:
    names = only.split(",")
    if unknown := set(names) - set(SETTINGS):
        raise FacetError(f"--only {only}: unknown {', '.join(sorted(unknown))}; known are {', '.join(SETTINGS)}")
    peers_python = install_peers(folder) if {"pyvista", "pyrender"} & set(names) else Path(sys.executable)
    opengl = {"EGL_PLATFORM": "surfaceless", "PYOPENGL_PLATFORM": "egl"}
    vulkan = vulkan_environment(folder) if "open3d" in names else {}
    places = {
        "ours": (Path(sys.executable), {}),
        "pyvista": (peers_python, opengl),
        "pyrender": (peers_python, opengl),
        "open3d": (Path(sys.executable), vulkan),
    }
    candidates = []
    for name in names:
        python, environment = places[name]
        for settings in SETTINGS[name]:
            if name != "ours" and NUM_CORES > 1:  # Mesa's own threads
                threads = {"LP_NUM_THREADS": str(NUM_CORES)}
                candidates.append(Candidate(name, settings, 1, python, environment | threads))
            candidates.append(Candidate(name, settings, NUM_CORES, python, environment | {"LP_NUM_THREADS": "0"}))
    return candidates


def choose_finalists(candidates: list[Candidate]) -> list[Candidate]:
    """All of ours; of each peer the settings near its fastest."""
    fastest = {name: max((c.best for c in candidates if c.renderer == name), default=0.0) for name in SETTINGS}
    return [c for c in candidates if c.renderer == "ours" or c.best >= NEAR_FASTEST * fastest[c.renderer]]
