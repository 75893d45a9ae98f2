"""A program that shows runs beside their own files (`--log`), and what it knows a run by."""

from __future__ import annotations

import json
import re
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from shared.errors import FacetError, first_line
from shared.runs import CROSSVAL_JSON
from shared.schema import canonical_json
from shared.store.storage import write_file

TRACKING_JSON = "tracking.json"  # program → the id that it knows the run by
PROJECT = "facet-vlm"  # in MLflow an experiment
_MAX_BYTES = 1 << 16
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tracker(ABC):
    """A program that shows runs. Its failures end no training: they are one line, and it gets nothing more."""

    option: ClassVar[str]  # also the name of the package to install
    module: ClassVar[str]  # to import

    def __init__(self, run: Path) -> None:
        self.run = run
        self.is_new = True  # it does not know the run yet
        self.is_finished = False
        self._failed = False
        self._known = -1  # it has all lines up to this step

    @classmethod
    def check(cls) -> None:
        """Check that the program can be used.

        Raises:
            FacetError: its package is not installed, or it refuses its settings.
        """
        try:
            import_module(cls.module)
        except ImportError as error:
            package = cls.option
            raise FacetError(
                f"--log {package}: the package {package} is not installed; pip install {package}"
            ) from error

    @abstractmethod
    def begin(self, settings: dict[str, Any]) -> None:
        """Begin the run, or continue it.

        Raises:
            FacetError: the program refuses.
        """

    def start(self, step: int, earlier: Sequence[dict[str, Any]]) -> None:
        """Prepare for the lines after `step` steps. A run that the program does not know gets those before it.

        Args:
            earlier: all lines of an interrupted training, of which those after `step` are trained again.
        """
        self._known = -1 if self.is_new else max((line["step"] for line in earlier), default=-1)
        for line in earlier if self.is_new else ():
            if line["step"] <= step:
                self.log(line)

    def log(self, line: dict[str, Any]) -> None:
        """Show a line of log.jsonl, unless an interrupted training has shown it."""
        if line["step"] > self._known and not self._failed:
            with self._guard():
                self.write(int(line["step"]), {name: value for name, value in line.items() if name != "step"})

    def finish(self, step: int, scores: dict[str, float], pictures: Sequence[Path]) -> None:
        """Show the scores and pictures of the test."""
        if not self._failed:
            with self._guard():
                self.write_test(step, scores, pictures)
        self.is_finished = True

    def close(self) -> None:
        """End the run, finished or interrupted."""
        with self._guard():
            self.end()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of another program; a training of days must not end by it
            self._failed = True
            print(f"warning: --log {self.option}: {first_line(error)}; nothing more is sent there", file=sys.stderr)

    @abstractmethod
    def describe(self) -> str:
        """Return where the run is shown."""

    @abstractmethod
    def write(self, step: int, values: dict[str, float]) -> None: ...

    @abstractmethod
    def write_test(self, step: int, scores: dict[str, float], pictures: Sequence[Path]) -> None: ...

    @abstractmethod
    def end(self) -> None: ...

    def find_id(self) -> str:
        """Return the id by which the program knows the run; a new one if it does not."""
        known = _read_ids(self.run).get(self.option)
        self.is_new = known is None
        return known or uuid.uuid4().hex

    def record_id(self, identity: str) -> None:
        """Remember the id for a training that continues this one."""
        ids = _read_ids(self.run) | {self.option: identity}
        write_file(self.run / TRACKING_JSON, canonical_json(ids).encode())


def _read_ids(run: Path) -> dict[str, str]:
    """Read tracking.json; without a usable one, no program knows the run."""
    path = run / TRACKING_JSON
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    items = value.items() if isinstance(value, dict) else ()
    return {name: known for name, known in items if isinstance(known, str) and _ID.fullmatch(known)}


def find_study(run: Path) -> Path | None:
    """Return the folder of the cross-validation that a run is, or that a fold belongs to."""
    folders = (run.absolute(), *run.absolute().parents[:2])
    return next((folder for folder in folders if (folder / CROSSVAL_JSON).is_file()), None)


def name_run(run: Path) -> str:
    study = find_study(run)
    return run.absolute().relative_to(study.parent).as_posix() if study else run.absolute().name
