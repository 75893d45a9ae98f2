"""Runs one candidate's processes: starts them, has them draw for a while, ends them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
from benchmarks.peers.candidates import Candidate

from shared.errors import FacetError

ROOT = Path(__file__).resolve().parents[3]


class Processes:
    """The processes of one candidate, ready to draw."""

    def __init__(self, candidate: Candidate, scene: Path, folder: Path) -> None:
        module = f"benchmarks.peers.draw_{candidate.renderer}"
        environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | candidate.environment
        environment["PYTHONPATH"] = f"{ROOT / 'tests'}{os.pathsep}{ROOT}"
        self.candidate, self.folder = candidate, folder
        self.log = (folder / "log").open("w+")
        self.processes = [
            subprocess.Popen(
                [candidate.python, "-m", module, scene, folder / f"{k}.npy", json.dumps(candidate.settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=environment,
            )
            for k in range(candidate.num_processes)
        ]

    def __enter__(self) -> Processes:
        for k in range(len(self.processes)):
            if self._answer(k) != "ready":
                raise FacetError(f"{self.candidate.renderer}: cannot tell what the process says")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.log.close()

    def _answer(self, k: int) -> str:
        stream = self.processes[k].stdout
        assert stream is not None
        line = stream.readline().strip()
        if not line:
            self.log.seek(0)
            said = self.log.read().strip().splitlines() or ["nothing"]
            raise FacetError(f"{self.candidate.renderer} ({self.candidate.name}) stopped; its last line: {said[-1]}")
        return line

    def draw(self, seconds: float) -> None:
        """One round: all processes at once."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        answers = [json.loads(self._answer(k)) for k in range(len(self.processes))]
        self.candidate.views_per_second.append(sum(a["views"] / a["seconds"] for a in answers))
        cpu_seconds, views = sum(a["cpu_seconds"] for a in answers), sum(a["views"] for a in answers)
        self.candidate.cpu_ms_per_view.append(1e3 * cpu_seconds / views)

    def images(self) -> np.ndarray:
        """u8 (V, 224, 224, 3), what its first process drew."""
        images: np.ndarray = np.load(self.folder / "0.npy")
        return images
