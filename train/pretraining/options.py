"""Options of `train pretrain`: each field is the option of its name."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import FacetError
from shared.modalities import MODALITIES
from train.options import COLOUR, MAX_SEED, check_values, declare


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """what `train pretrain` does; None: not chosen"""

    model: str | None = declare(
        None, "open_clip model (default: the model of the captions)", metavar="NAME|local-dir:DIR"
    )
    pretrained: str | None = declare(
        None,
        "initial weights of both towers: an open_clip tag, a file, or none (default: those of the captions)",
        metavar="TAG|FILE|none",
    )
    modalities: tuple[str, ...] | None = declare(
        None, f"of {', '.join(MODALITIES)} (default: all of each cache)", choices=tuple(MODALITIES)
    )
    images_per_row: int = declare(1, "images of a row in each step, of random views and modalities", 1, 64)
    tune_text: str = declare(
        "full",
        "full: train the text tower, too; frozen: use the embeddings that `preprocess prompts --captions` computed",
        choices=("full", "frozen"),
    )
    validate: float = declare(0.1, "fraction of subjects held out for validation", 0, 0.9)
    augment: str = declare("flip", "augmentation, as in fit", choices=("standard", "flip", "none"))
    flip_epochs: int = declare(0, "epochs at the end that mirror images and change nothing else", 0, 100_000)
    background: str = declare("black", "colour of texture where there is no surface, as in fit", **COLOUR)
    epochs: int = declare(30, "passes over the rows", 1, 100_000)
    batch_size: int = declare(32, "rows per step", 2, 65_536)
    lr: float = declare(2e-3, "peak learning rate of the image tower", 1e-9, 10)
    weight_decay: float = declare(0.05, "weight decay (AdamW) of the weight matrices", 0, 100)
    warmup: float = declare(0.05, "fraction of all steps in which the learning rate rises", 0, 1)
    seed: int = declare(0, "seed of initial weights, validation subjects, order, images and augmentation", 0, MAX_SEED)

    def __post_init__(self) -> None:
        check_values(self)
        if self.flip_epochs > self.epochs:
            raise FacetError(f"--flip-epochs {self.flip_epochs}: more than --epochs {self.epochs}")
        if self.flip_epochs and self.augment == "none":
            raise FacetError("--flip-epochs: --augment none mirrors no image; leave one of them out")

    def augmentation_of(self, epoch: int) -> str:
        """Return the augmentation of an epoch, one of --augment. epoch: from 0."""
        return "flip" if epoch >= self.epochs - self.flip_epochs else self.augment
