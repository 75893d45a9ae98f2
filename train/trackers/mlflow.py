"""`--log mlflow`: a run on a server of MLflow, or in its folder or file."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line, shorten
from train.trackers.tracker import PROJECT, Tracker, find_study, name_run

_MAX_CHARACTERS = 500  # of a value


class MLflow(Tracker):
    """The server or folder of MLFLOW_TRACKING_URI; without it MLflow's default, mlflow.db in the current folder."""

    option = module = "mlflow"

    @classmethod
    def check(cls) -> None:
        super().check()
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
        tags = {"study": study.name} if (study := find_study(self.run)) else {}
        self._id = self._client.create_run(experiment, run_name=name_run(self.run), tags=tags).info.run_id
        self.record_id(self._id)
        for name, value in settings.items():
            self._client.log_param(self._id, name, shorten(str(value), _MAX_CHARACTERS))

    def describe(self) -> str:
        return f"run {self._id} at {self._client.tracking_uri}"

    def write(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def write_test(self, step: int, scores: dict[str, float], pictures: Sequence[Path]) -> None:
        self.write(step, scores)
        for path in pictures:
            self._client.log_artifact(self._id, str(path))

    def end(self) -> None:
        self._client.set_terminated(self._id, "FINISHED" if self.is_finished else "KILLED")
