"""`--log tensorboard`: event files in the folder of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.trackers.tracker import Tracker

TENSORBOARD = "tensorboard"  # folder


class TensorBoard(Tracker):
    """Event files in the run's folder."""

    option = "tensorboard"
    module = "torch.utils.tensorboard"

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
