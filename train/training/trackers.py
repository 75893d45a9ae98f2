"""`--log`: show a run in TensorBoard, MLflow or Weights & Biases, beside its own files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from shared.errors import FacetError, first_line, shorten
from shared.runs import CONFUSION_PNG, CROSSVAL_JSON, read_log
from shared.schema import canonical_json
from shared.store.storage import write_file
from train.config import RunConfig, without_folders
from train.runs.results import FoldResult

TENSORBOARD = "tensorboard"  # folder
TRACKING_JSON = "tracking.json"  # program → the id that it knows the run by
PROJECT = "facet-vlm"  # in MLflow an experiment
_MOST_BYTES, _MOST_CHARACTERS = 1 << 16, 500
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tracker(ABC):
    """A program that shows runs. Its failures end no training: they are one line, and it gets nothing more."""

    option: ClassVar[str]

    def __init__(self, run: Path) -> None:
        self.run = run
        self.is_new = True  # it does not know the run yet
        self.is_finished = False
        self._failed = False
        self._known = -1  # it has all lines up to this step

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Check that the program can be used.

        Raises:
            FacetError: its package is not installed, or it refuses its settings.
        """

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


class TensorBoard(Tracker):
    """Event files in the run's folder."""

    option = "tensorboard"

    @classmethod
    def check(cls) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise _describe_missing("tensorboard", "tensorboard") from error

    def begin(self, settings: dict[str, Any]) -> None:
        self.is_new = not (self.run / TENSORBOARD).is_dir()
        self._settings = settings
        self._writer: Any = None

    def start(self, step: int, earlier: Sequence[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.run / TENSORBOARD), purge_step=step + 1)
        if self.is_new:
            self._writer.add_text("settings", "\n".join(f"- {name}: {value}" for name, value in self._settings.items()))
        super().start(step, earlier)
        self._known = step

    def describe(self) -> str:
        return f"tensorboard --logdir {self.run / TENSORBOARD}"

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def write_test(self, step: int, scores: dict[str, float], pictures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        for path in pictures:
            self._writer.add_image(path.stem, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
        self.write(step, scores)

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow(Tracker):
    """The server or folder of MLFLOW_TRACKING_URI; without it MLflow's default, mlflow.db in the current folder."""

    option = "mlflow"

    @classmethod
    def check(cls) -> None:
        try:
            import mlflow  # noqa: F401
        except ImportError as error:
            raise _describe_missing("mlflow", "mlflow") from error
        cls._open()  # once, before several folds do it at the same time

    @classmethod
    def _open(cls) -> tuple[Any, str]:
        """Return a client, and the id of the experiment."""
        from mlflow import MlflowClient

        try:
            client = MlflowClient()
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = client.get_experiment_by_name(name)
            return client, str(found.experiment_id if found else client.create_experiment(name))
        except Exception as error:
            raise FacetError(f"--log mlflow: {first_line(error)}; see MLFLOW_TRACKING_URI") from error

    def begin(self, settings: dict[str, Any]) -> None:
        self._client, experiment = self._open()
        self._id = self.find_id()
        try:
            if not self.is_new:
                self._client.update_run(self._id, status="RUNNING")
        except Exception:  # another server, or it was deleted there
            self.is_new = True
        if not self.is_new:
            return
        tags = {"study": study.name} if (study := _find_study(self.run)) else {}
        self._id = self._client.create_run(experiment, run_name=_name_run(self.run), tags=tags).info.run_id
        self.record_id(self._id)
        for name, value in settings.items():
            self._client.log_param(self._id, name, shorten(str(value), _MOST_CHARACTERS))

    def describe(self) -> str:
        return f"run {self._id} at {self._client.tracking_uri}"

    def write(self, step: int, values: dict[str, float]) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def write_test(self, step: int, scores: dict[str, float], pictures: Sequence[Path]) -> None:
        self.write(step, scores)
        for path in pictures:
            self._client.log_artifact(self._id, str(path))

    def end(self) -> None:
        self._client.set_terminated(self._id, "FINISHED" if self.is_finished else "KILLED")


class WeightsAndBiases(Tracker):
    """wandb.ai, or files in the run's folder with WANDB_MODE=offline."""

    option = "wandb"

    @classmethod
    def check(cls) -> None:
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise _describe_missing("wandb", "wandb") from error

    def begin(self, settings: dict[str, Any]) -> None:
        import wandb

        study = _find_study(self.run)
        identity = self.find_id()
        try:
            self._wandb = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=identity,
                name=_name_run(self.run),
                group=study.name if study else None,
                config=settings,
                dir=str(self.run),
                resume=None if self.is_new else "allow",
                settings=wandb.Settings(
                    silent=True, console="off", save_code=False, disable_git=True, x_disable_meta=True
                ),
            )
        except Exception as error:
            advice = "run `wandb login`, or set WANDB_MODE=offline"
            raise FacetError(f"--log wandb: {first_line(error)}; {advice}") from error
        self.record_id(identity)

    def describe(self) -> str:
        return f"wandb sync {Path(self._wandb.dir).parent}" if self._wandb.offline else str(self._wandb.url)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._wandb.log(values, step=step)

    def write_test(self, step: int, scores: dict[str, float], pictures: Sequence[Path]) -> None:
        import wandb

        self._wandb.summary.update(scores)
        for path in pictures:
            self._wandb.log({path.stem: wandb.Image(str(path))})

    def end(self) -> None:
        self._wandb.finish(exit_code=int(not self.is_finished))


TRACKERS: dict[str, type[Tracker]] = {kind.option: kind for kind in (TensorBoard, MLflow, WeightsAndBiases)}


def check_trackers(names: Sequence[str]) -> None:
    """Check that the programs of --log can be used.

    Raises:
        FacetError: a package is not installed, or a program refuses its settings.
    """
    for name in names:
        TRACKERS[name].check()


@contextmanager
def open_trackers(run: Path, names: Sequence[str], config: RunConfig) -> Iterator[list[Tracker]]:
    """Begin or continue a run in each program of --log.

    Raises:
        FacetError: a program refuses.
    """
    shown = without_folders(config)
    settings = dataclasses.asdict(shown.recipe) | {
        "dataset": shown.dataset,
        "cache": shown.content_hash[:16],
        "tower": shown.tower.name,
        "random_weights": shown.is_random,
    }
    trackers: list[Tracker] = []
    with ExitStack() as stack:
        for name in names:
            tracker = TRACKERS[name](run)
            tracker.begin(settings)
            stack.callback(tracker.close)
            trackers.append(tracker)
        yield trackers


def show_result(trackers: Sequence[Tracker], run: Path, result: FoldResult | None) -> None:
    """Show the scores of a test, and its confusion matrix. result: None if nobody was tested."""
    scores: dict[str, float] = {}
    if result is not None:
        metrics, shown = result.metrics, result.task.class_score.name
        named = {f"test/{name}": value for name, value in metrics.overall.items()}
        each = zip(result.class_names, metrics.per_class[shown], strict=True)
        named |= {f"test/{shown}/{class_name}": value for class_name, value in each}
        scores = {name: value for name, value in named.items() if value is not None}
    pictures = [path for path in (run / CONFUSION_PNG,) if path.is_file()]
    last = max((int(line["step"]) for line in read_log(run)), default=0) if trackers else 0
    for tracker in trackers:
        tracker.finish(last, scores, pictures)


def _find_study(run: Path) -> Path | None:
    """Return the folder of the cross-validation that a fold belongs to."""
    return next((folder for folder in run.absolute().parents[:2] if (folder / CROSSVAL_JSON).is_file()), None)


def _name_run(run: Path) -> str:
    study = _find_study(run)
    return run.absolute().relative_to(study.parent).as_posix() if study else run.absolute().name


def _read_ids(run: Path) -> dict[str, str]:
    """Read tracking.json; without a usable one, no program knows the run."""
    path = run / TRACKING_JSON
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    items = value.items() if isinstance(value, dict) else ()
    return {name: known for name, known in items if isinstance(known, str) and _ID.fullmatch(known)}


def _describe_missing(option: str, package: str) -> FacetError:
    return FacetError(f"--log {option}: the package {package} is not installed; pip install {package}")
