"""`--log wandb`: a run of Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line
from train.trackers.tracker import PROJECT, Tracker, find_study, name_run


class WeightsAndBiases(Tracker):
    """wandb.ai, or files in the run's folder with WANDB_MODE=offline."""

    option = module = "wandb"

    def begin(self, settings: dict[str, Any]) -> None:
        import wandb

        study = find_study(self.run)
        identity = self.find_id()
        try:
            self._wandb = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=identity,
                name=name_run(self.run),
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
