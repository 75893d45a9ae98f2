"""Options of a training: what a user may choose (Options, RunOptions), and what was resolved (Recipe).

Each section is one dataclass, one group of `--help` and one table of config.toml. A field is the option of its name, with its
default, help text and range beside it. A default of None depends on the data or on other options: see train/resolve.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import FacetError
from shared.modalities import MODALITIES
from train.option_values import find_problem, format_value, option_name
from train.parts import FUSIONS, HEADS, TASKS, collect_weights, list_extra_losses, list_parts, read_losses
from train.tasks.task import find_task

MAX_SEED = 2**32 - 1
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
COLOUR: dict[str, Any] = {"pattern": f"black|mean|{_BYTE},{_BYTE},{_BYTE}", "metavar": "black|mean|R,G,B"}


def declare(default: Any, text: str, low: float | None = None, high: float | None = None, **metadata: Any) -> Any:
    """Declare a field that is an option of the command line.

    Args:
        text: the help text. low, high: the range of a number, inclusive.
        metadata: choices (names); pattern (of a name, in words the metavar); metavar; aliases (more names of the option).
    """
    return field(default=default, metadata={"help": text, "low": low, "high": high, **metadata})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """where the data is and how the run is executed"""

    cache: Path | None = declare(
        None, "a finished cache; with --test-cache, the cache to train on", metavar="DIR", aliases=("--train-cache",)
    )
    test_cache: Path | None = declare(None, "test on this whole cache of another data set", metavar="DIR")
    prompts: Path | None = declare(
        None, "prompt embeddings from `preprocess prompts --out FILE` (default: those in the cache)", metavar="FILE"
    )
    device: str = declare("auto", "auto, cpu, cuda, cuda:1 …", metavar="NAME")
    embeddings: str = declare(
        "auto",
        "with --tune frozen: folder for the tower's embeddings of all images, computed once for all runs (auto: the folder "
        "embeddings beside RUN; off: run the tower in every step)",
        metavar="DIR",
    )
    preload: str = declare(
        "none",
        "load the training images once, into RAM or GPU memory; none: read them when needed. The results are the same. Each of "
        "several --jobs loads its own",
        choices=("none", "ram", "gpu"),
    )
    checkpoint_every: int = declare(200, "steps between checkpoints", 1, metavar="STEPS")
    keep_checkpoints: int = declare(
        1, "number of checkpoints kept; if the newest is damaged, the one before is used", 1
    )
    log: tuple[str, ...] = declare(
        (),
        "also show runs in tensorboard (a folder in each run), mlflow (server: MLFLOW_TRACKING_URI) or wandb (files only: "
        "WANDB_MODE=offline); separated by commas",
        choices=("tensorboard", "mlflow", "wandb"),
    )
    profile: int = declare(0, "record N steps with torch's profiler, into RUN/profile", 0)
    jobs: int | None = declare(None, "folds trained side by side (default: one per GPU, or one per CPU core)", 1)
    name: str | None = declare(None, 'name of the method in tables and figures, such as "Ours"', metavar="TEXT")
    discard_weights: bool = declare(False, "keep the scores and predictions of each fold, but not its model")

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """who trains and who is tested"""

    protocol: str | None = declare(
        None,
        "how subjects are split: a name listed by `python -m train protocols`, or a .json file of folds (default: kfold; cross "
        "with --test-cache)",
        metavar="NAME|FILE.json",
    )
    folds: int | None = declare(None, "number of folds (default: the protocol's; kfold has 10)", 1, 10_000)
    rounds: int | None = declare(
        None,
        "how often the whole cross-validation is repeated, each time with other folds (default: the protocol's)",
        1,
        10_000,
    )
    fold: int | None = declare(
        None,
        "index of the fold to test on; train on all other folds (default: fit 0; crossval and ablate all)",
        0,
        999_999,
    )
    test_subjects: tuple[str, ...] = declare(
        (),
        "test on these subjects instead of a fold: A,B,C or a file with one subject per line; none: train on everyone, for a "
        "model to pass on",
        metavar="LIST|FILE|none",
    )
    validate: tuple[str, ...] = declare(
        (),
        "hold out this fraction of the training subjects, or these subjects, and test the weights of the epoch with the least "
        "loss on them: 0.1, or A,B,C, or a file (default: test the last epoch)",
        metavar="FRACTION|LIST|FILE",
    )
    fold_seed: int | None = declare(
        None,
        "seed of the split into folds; give it to compare several --seed on the same split (default: --seed)",
        0,
        MAX_SEED,
    )
    task: str | None = declare(
        None, f"labels to predict ({list_parts(TASKS)}; default: the protocol's; kfold has classes)", choices=TASKS
    )
    classes: tuple[str, ...] | None = declare(
        None, "class names to predict (default: the protocol's, else all classes of the cache but neutral)"
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """which samples, images and frames the model sees"""

    where: tuple[str, ...] = declare(
        (),
        "use only samples with this value in a column of the cache's groups (sex, race, your own), or in subject, task, "
        "intensity or label; sex=F,site=A|B: F, and site A or B",
        pattern=r"[^=]*[^=\s][^=]*=.*\S.*",
        metavar="COLUMN=VALUE",
    )
    modalities: tuple[str, ...] | None = declare(
        None,
        f"of {', '.join(MODALITIES)} (default: those that at least nine of ten scans have)",
        choices=tuple(MODALITIES),
    )
    views: tuple[str, ...] | None = declare(
        None, "yaw or yaw:pitch of the views, in degrees: 0,20 or 0:15 (default: all views of the cache)"
    )
    background: str = declare(
        "black",
        "colour of texture where there is no surface: beside the face, and in holes of the scan; black, mean (the mean of the "
        "tower's training images, 0 after normalisation) or R,G,B, each 0 to 255",
        **COLOUR,
    )
    train_views: int | None = declare(
        None,
        "views per sample in each training step, drawn at random; all are tested. Fewer views, cheaper steps: give more "
        "--epochs (default: 2; all with --fusion concat or --towers view)",
        1,
        256,
    )
    frames: int | None = declare(
        None, "frames per sequence, evenly spaced (default: 6 for sequences, 1 for scans)", 1, 256
    )
    frame_sampling: str = declare(
        "uniform", "take frames from the whole sequence, or from a window around its apex", choices=("uniform", "apex")
    )
    frame_window: int | None = declare(
        None, "length of the window around the apex, in frames (default: half of the sequence)", 1, 100_000
    )
    frame_stride: int = declare(1, "with --task aus: train on every N-th frame; all frames are tested", 1, 10_000)
    reference: str = declare(
        "none",
        "subtract the features of the subject's neutral scan, or of the sequence's onset frame",
        choices=("none", "neutral", "onset"),
    )
    centre_scores: str = declare(
        "none",
        "when predicting, subtract half of the scores of the subject's neutral scan; or the mean score of the subject's scans, "
        "or of all scans, without labels: for subjects who show all classes equally often",
        choices=("none", "neutral", "subject", "all"),
    )
    sampler: str = declare(
        "each",
        "each: every training sample once an epoch; balanced: as many samples, all classes equally likely",
        choices=("each", "balanced"),
    )
    augment: str = declare(
        "flip",
        "flip: random mirroring; standard: also shifts, scales, colours, noise and erasures, which a short training from "
        "random weights does not learn through. With embeddings of a frozen tower, standard means flip",
        choices=("flip", "standard", "none"),
    )
    shuffle_labels: bool = declare(
        False, "control: permute the training labels (with --seed); accuracy must fall to chance"
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """image tower, fusion of views, and class scores"""

    model: str | None = declare(
        None, "open_clip model (default: the model of the prompts)", metavar="NAME|local-dir:DIR"
    )
    pretrained: str | None = declare(
        None,
        "initial weights: an open_clip tag, a file, or none (default: those of the prompts)",
        metavar="TAG|FILE|none",
    )
    init_from: str | None = declare(
        None,
        "start from a trained model, of this or another data set: a run or an exported model with the same image tower; what "
        "fits is copied",
        metavar="RUN",
    )
    tune: str = declare(
        "full",
        "weights of the image tower to train: full, frozen, last-K (its last K blocks), or lora-R (low-rank updates of rank R, "
        "8 for lora, merged into the weights at the end)",
        pattern=r"full|frozen|last-\d{1,3}|lora(-[1-9]\d{0,3})?",
        metavar="full|frozen|last-K|lora|lora-R",
    )
    towers: str = declare(
        "shared",
        "one image tower for all views, or one per view, with equal initial weights",
        choices=("shared", "view"),
    )
    fusion: str = declare("cvsa", f"how views become one face ({list_parts(FUSIONS)})", choices=tuple(FUSIONS))
    head: str = declare("mtgf", f"how a face becomes class scores ({list_parts(HEADS)})", choices=tuple(HEADS))
    class_vectors: str = declare(
        "text",
        "a class is given by its prompts' embeddings (text), by these plus a learned residual, zero at first (residual), or by "
        "a learned vector (learned)",
        choices=("text", "residual", "learned"),
    )
    mtgf_tokens: str = declare(
        "views",
        "tokens that the class text attends to in MTGF: one per view, or also the tower's patch tokens",
        choices=("views", "patches"),
    )


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """loss terms and their weights"""

    lambda_con: float = declare(0.1, "weight of the consistency loss; 0 leaves it out", 0, 1e3)
    lambda_vt: float = declare(0.5, "weight of the text loss of each single view; 0 leaves it out", 0, 1e3)
    extra_losses: tuple[str, ...] = declare(
        (), f"further loss terms, separated by commas ({list_parts(list_extra_losses())})", metavar="NAME=WEIGHT"
    )
    class_weights: str = declare(
        "none", "balanced: rare classes weigh as much in the loss as frequent ones", choices=("none", "balanced")
    )


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """optimisation"""

    epochs: int = declare(30, "passes over the training samples; 0 tests the untrained model", 0, 100_000)
    patience: int | None = declare(
        None, "with --validate: stop when the loss has not fallen for N epochs (default: train all epochs)", 1, 100_000
    )
    batch_size: int = declare(8, "samples per step", 1, 65_536)
    lr: float = declare(1e-3, "peak learning rate of the new layers", 1e-9, 10)
    tower_lr: float | None = declare(
        None,
        "peak learning rate of the image tower (default: --lr for random weights and for towers as small as facet-tiny's, "
        "else --lr / 100)",
        0,
        10,
    )
    weight_decay: float = declare(0.05, "weight decay (AdamW) of the weight matrices", 0, 100)
    warmup: float = declare(0.1, "fraction of all steps in which the learning rate rises", 0, 1)
    layer_decay: float = declare(
        1.0, "the learning rate of a tower block is this factor times that of the block after it", 0.01, 1
    )
    gradient_accumulation: int = declare(1, "compute each batch in N parts: less memory, the same gradient", 1, 65_536)
    gradient_checkpointing: bool = declare(False, "recompute the tower's activations: less memory, a third more time")
    ema: float = declare(0.0, "use the moving average of the weights with this decay, e.g. 0.999", 0, 0.999999)
    seed: int = declare(0, "seed of initial weights, split, sample order and augmentation", 0, MAX_SEED)


SECTIONS: dict[str, type] = {
    "run": RunOptions,
    "protocol": ProtocolOptions,
    "data": DataOptions,
    "model": ModelOptions,
    "loss": LossOptions,
    "optim": OptimOptions,
}


# dataclasses order inherited fields from the last base to the first
@dataclass(frozen=True, kw_only=True)
class Options(OptimOptions, LossOptions, ModelOptions, DataOptions, ProtocolOptions):
    """What a user chose of everything that changes the numbers of a run; None: not chosen.

    Raises:
        FacetError: a value is out of its range, or --extra-losses names no term.
    """

    def __post_init__(self) -> None:
        check_values(self)
        read_losses(self.extra_losses)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Name → weight of each term beside the loss of the class scores; 0: not computed."""
        return collect_weights(self)


@dataclass(frozen=True, kw_only=True)
class Recipe(Options):
    """Options with every default resolved: what a run trains and tests."""

    protocol: str = field()
    folds: int = field()  # per round
    rounds: int = field()
    fold: int = field()  # 0 in crossval.json and ablation.json, which are about all folds
    fold_seed: int = field()
    task: str = field()
    classes: tuple[str, ...] = field()
    modalities: tuple[str, ...] = field()
    views: tuple[str, ...] = field()
    train_views: int = field()
    frames: int = field()
    model: str = field()
    pretrained: str = field()
    tower_lr: float = field()

    @property
    def is_multilabel(self) -> bool:
        """Whether several classes may hold at once, each yes or no."""
        return find_task(self.task).several


OPTIONS = {option.name: option for option in dataclasses.fields(Options)}  # in the order of the sections


def check_values(settings: Any) -> None:
    """Check each value of a section by itself.

    Raises:
        FacetError: a value is missing, of another type, or out of its range; names the option.
    """
    for option in dataclasses.fields(settings):
        declared = option if option.metadata else OPTIONS[option.name]  # a Recipe declares types alone
        if problem := find_problem(declared, getattr(settings, option.name), str(option.type)):
            raise FacetError(f"{option_name(option.name)}: {problem}")


def describe_options(recipe: Recipe) -> str:
    """Return the options that differ from the defaults, as text for a command line of crossval: without the fold."""
    texts = []
    for name, option in OPTIONS.items():
        value = None if name == "fold" else getattr(recipe, name)
        if value is True:
            texts.append(option_name(name))
        elif value is not None and value != option.default:
            texts.append(f"{option_name(name)} {format_value(value)}")
    return " ".join(texts)
