"""Settings of a training: what a user may choose (Options), what was resolved (Recipe), and a run's identity (RunConfig).

Each section is one dataclass, one group of `--help` and one table of config.toml. A field is the option of its name, with its
default, help text and range beside it. A default of None depends on the data or on other options: see train/resolve.py.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.cache import CACHE_JSON
from shared.errors import FacetError, first_line
from shared.modalities import MODALITIES
from shared.runs import ABLATION_JSON, CONFIG_JSON, CROSSVAL_JSON, check_file
from shared.schema import RenderSettings, canonical_json
from shared.store.storage import write_file
from shared.typed_json import make
from shared.weights.models import LOCAL_DIR
from train.parts import FUSIONS, HEADS, TASKS, collect_weights, list_extra_losses, list_parts, read_losses
from train.tasks.task import find_task

RUN_VERSION = 5  # 5: train_views; class vectors are centred
RANDOM = "none"  # --pretrained none: random initial weights
_MAX_CONFIG_BYTES = 1 << 24
_MAX_SEED = 2**32 - 1
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_COLOUR: dict[str, Any] = {"pattern": f"black|mean|{_BYTE},{_BYTE},{_BYTE}", "metavar": "black|mean|R,G,B"}
# Former name of an option → its name, for files of earlier runs.
_RENAMED = {
    "accumulate": "gradient_accumulation",
    "checkpoint_activations": "gradient_checkpointing",
    "sampling": "frame_sampling",
    "window": "frame_window",
}


def _option(default: Any, text: str, low: float | None = None, high: float | None = None, **metadata: Any) -> Any:
    """Declare a field that is an option of the command line.

    Args:
        text: the help text. low, high: the range of a number, inclusive.
        metadata: choices (names); pattern (of a name, in words the metavar); metavar; aliases (more names of the option).
    """
    return field(default=default, metadata={"help": text, "low": low, "high": high, **metadata})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """where the data is and how the run is executed"""

    cache: Path | None = _option(
        None, "a finished cache; with --test-cache, the cache to train on", metavar="DIR", aliases=("--train-cache",)
    )
    test_cache: Path | None = _option(None, "test on this whole cache of another data set", metavar="DIR")
    prompts: Path | None = _option(
        None, "prompt embeddings from `preprocess prompts --out FILE` (default: those in the cache)", metavar="FILE"
    )
    device: str = _option("auto", "auto, cpu, cuda, cuda:1 …", metavar="NAME")
    embeddings: str = _option(
        "auto",
        "with --tune frozen: folder for the tower's embeddings of all images, computed once for all runs (auto: the folder "
        "embeddings beside RUN; off: run the tower in every step)",
        metavar="DIR",
    )
    preload: str = _option(
        "none",
        "load the training images once, into RAM or GPU memory; none: read them when needed. The results are the same. Each of "
        "several --jobs loads its own",
        choices=("none", "ram", "gpu"),
    )
    checkpoint_every: int = _option(200, "steps between checkpoints", 1, metavar="STEPS")
    keep_checkpoints: int = _option(
        1, "number of checkpoints kept; if the newest is damaged, the one before is used", 1
    )
    log: tuple[str, ...] = _option(
        (),
        "also show runs in tensorboard (a folder in each run), mlflow (server: MLFLOW_TRACKING_URI) or wandb (files only: "
        "WANDB_MODE=offline); separated by commas",
        choices=("tensorboard", "mlflow", "wandb"),
    )
    profile: int = _option(0, "record N steps with torch's profiler, into RUN/profile", 0)
    jobs: int | None = _option(None, "folds trained side by side (default: one per GPU, or one per CPU core)", 1)
    name: str | None = _option(None, 'name of the method in tables and figures, such as "Ours"', metavar="TEXT")
    discard_weights: bool = _option(False, "keep the scores and predictions of each fold, but not its model")

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """who trains and who is tested"""

    protocol: str | None = _option(
        None,
        "how subjects are split: a name listed by `python -m train protocols`, or a .json file of folds (default: kfold; cross "
        "with --test-cache)",
        metavar="NAME|FILE.json",
    )
    folds: int | None = _option(None, "number of folds (default: the protocol's; kfold has 10)", 1, 10_000)
    rounds: int | None = _option(
        None,
        "how often the whole cross-validation is repeated, each time with other folds (default: the protocol's)",
        1,
        10_000,
    )
    fold: int | None = _option(
        None,
        "index of the fold to test on; train on all other folds (default: fit 0; crossval and ablate all)",
        0,
        999_999,
    )
    test_subjects: tuple[str, ...] = _option(
        (),
        "test on these subjects instead of a fold: A,B,C or a file with one subject per line; none: train on everyone, for a "
        "model to pass on",
        metavar="LIST|FILE|none",
    )
    validate: tuple[str, ...] = _option(
        (),
        "hold out this fraction of the training subjects, or these subjects, and test the weights of the epoch with the least "
        "loss on them: 0.1, or A,B,C, or a file (default: test the last epoch)",
        metavar="FRACTION|LIST|FILE",
    )
    fold_seed: int | None = _option(
        None,
        "seed of the split into folds; give it to compare several --seed on the same split (default: --seed)",
        0,
        _MAX_SEED,
    )
    task: str | None = _option(
        None,
        f"labels to predict ({list_parts(TASKS)}; default: the protocol's; kfold has classes)",
        choices=TASKS,
    )
    classes: tuple[str, ...] | None = _option(
        None, "class names to predict (default: the protocol's, else all classes of the cache but neutral)"
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """which samples, images and frames the model sees"""

    where: tuple[str, ...] = _option(
        (),
        "use only samples with this value in a column of the cache's groups (sex, race, your own), or in subject, task, "
        "intensity or label; sex=F,site=A|B: F, and site A or B",
        pattern=r"[^=]*[^=\s][^=]*=.*\S.*",
        metavar="COLUMN=VALUE",
    )
    modalities: tuple[str, ...] | None = _option(
        None,
        f"of {', '.join(MODALITIES)} (default: those that at least nine of ten scans have)",
        choices=tuple(MODALITIES),
    )
    views: tuple[str, ...] | None = _option(
        None, "yaw or yaw:pitch of the views, in degrees: 0,20 or 0:15 (default: all views of the cache)"
    )
    background: str = _option(
        "black",
        "colour of texture where there is no surface: beside the face, and in holes of the scan; black, mean (the mean of the "
        "tower's training images, 0 after normalisation) or R,G,B, each 0 to 255",
        **_COLOUR,
    )
    train_views: int | None = _option(
        None,
        "views per sample in each training step, drawn at random; all are tested. Fewer views, cheaper steps: give more "
        "--epochs (default: 2; all with --fusion concat or --towers view)",
        1,
        256,
    )
    frames: int | None = _option(
        None, "frames per sequence, evenly spaced (default: 6 for sequences, 1 for scans)", 1, 256
    )
    frame_sampling: str = _option(
        "uniform", "take frames from the whole sequence, or from a window around its apex", choices=("uniform", "apex")
    )
    frame_window: int | None = _option(
        None, "length of the window around the apex, in frames (default: half of the sequence)", 1, 100_000
    )
    frame_stride: int = _option(1, "with --task aus: train on every N-th frame; all frames are tested", 1, 10_000)
    reference: str = _option(
        "none",
        "subtract the features of the subject's neutral scan, or of the sequence's onset frame",
        choices=("none", "neutral", "onset"),
    )
    sampler: str = _option(
        "each",
        "each: every training sample once an epoch; balanced: as many samples, all classes equally likely",
        choices=("each", "balanced"),
    )
    augment: str = _option(
        "flip",
        "flip: random mirroring; standard: also shifts, scales, colours, noise and erasures, which a short training from "
        "random weights does not learn through. With embeddings of a frozen tower, standard means flip",
        choices=("flip", "standard", "none"),
    )
    shuffle_labels: bool = _option(
        False, "control: permute the training labels (with --seed); accuracy must fall to chance"
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """image tower, fusion of views, and class scores"""

    model: str | None = _option(
        None, "open_clip model (default: the model of the prompts)", metavar="NAME|local-dir:DIR"
    )
    pretrained: str | None = _option(
        None,
        "initial weights: an open_clip tag, a file, or none (default: those of the prompts)",
        metavar="TAG|FILE|none",
    )
    init_from: str | None = _option(
        None,
        "start from a trained model, of this or another data set: a run or an exported model with the same image tower; what "
        "fits is copied",
        metavar="RUN",
    )
    tune: str = _option(
        "full",
        "weights of the image tower to train: full, frozen, last-K (its last K blocks), or lora-R (low-rank updates of rank R, "
        "8 for lora, merged into the weights at the end)",
        pattern=r"full|frozen|last-\d{1,3}|lora(-[1-9]\d{0,3})?",
        metavar="full|frozen|last-K|lora|lora-R",
    )
    towers: str = _option(
        "shared",
        "one image tower for all views, or one per view, with equal initial weights",
        choices=("shared", "view"),
    )
    fusion: str = _option("cvsa", f"how views become one face ({list_parts(FUSIONS)})", choices=tuple(FUSIONS))
    head: str = _option("mtgf", f"how a face becomes class scores ({list_parts(HEADS)})", choices=tuple(HEADS))
    class_vectors: str = _option(
        "text",
        "a class is given by its prompts' embeddings (text), by these plus a learned residual, zero at first (residual), or by "
        "a learned vector (learned)",
        choices=("text", "residual", "learned"),
    )
    mtgf_tokens: str = _option(
        "views",
        "tokens that the class text attends to in MTGF: one per view, or also the tower's patch tokens",
        choices=("views", "patches"),
    )


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """loss terms and their weights"""

    lambda_con: float = _option(0.1, "weight of the consistency loss; 0 leaves it out", 0, 1e3)
    lambda_vt: float = _option(0.5, "weight of the text loss of each single view; 0 leaves it out", 0, 1e3)
    extra_losses: tuple[str, ...] = _option(
        (), f"further loss terms, separated by commas ({list_parts(list_extra_losses())})", metavar="NAME=WEIGHT"
    )
    class_weights: str = _option(
        "none", "balanced: rare classes weigh as much in the loss as frequent ones", choices=("none", "balanced")
    )


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """optimisation"""

    epochs: int = _option(30, "passes over the training samples; 0 tests the untrained model", 0, 100_000)
    patience: int | None = _option(
        None, "with --validate: stop when the loss has not fallen for N epochs (default: train all epochs)", 1, 100_000
    )
    batch_size: int = _option(8, "samples per step", 1, 65_536)
    lr: float = _option(1e-3, "peak learning rate of the new layers", 1e-9, 10)
    tower_lr: float | None = _option(
        None,
        "peak learning rate of the image tower (default: --lr with --pretrained none, --lr / 100 with other weights, or what "
        "suits weights that ship)",
        0,
        10,
    )
    weight_decay: float = _option(0.05, "weight decay (AdamW) of the weight matrices", 0, 100)
    warmup: float = _option(0.1, "fraction of all steps in which the learning rate rises", 0, 1)
    layer_decay: float = _option(
        1.0, "the learning rate of a tower block is this factor times that of the block after it", 0.01, 1
    )
    gradient_accumulation: int = _option(1, "compute each batch in N parts: less memory, the same gradient", 1, 65_536)
    gradient_checkpointing: bool = _option(False, "recompute the tower's activations: less memory, a third more time")
    ema: float = _option(0.0, "use the moving average of the weights with this decay, e.g. 0.999", 0, 0.999999)
    seed: int = _option(0, "seed of initial weights, split, sample order and augmentation", 0, _MAX_SEED)


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


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """what `train pretrain` does; None: not chosen"""

    model: str | None = _option(
        None, "open_clip model (default: the model of the captions)", metavar="NAME|local-dir:DIR"
    )
    pretrained: str | None = _option(
        None,
        "initial weights of both towers: an open_clip tag, a file, or none (default: those of the captions)",
        metavar="TAG|FILE|none",
    )
    modalities: tuple[str, ...] | None = _option(
        None, f"of {', '.join(MODALITIES)} (default: all of each cache)", choices=tuple(MODALITIES)
    )
    images_per_row: int = _option(1, "images of a row in each step, of random views and modalities", 1, 64)
    tune_text: str = _option(
        "full",
        "full: train the text tower, too; frozen: use the embeddings that `preprocess prompts --captions` computed",
        choices=("full", "frozen"),
    )
    validate: float = _option(0.1, "fraction of subjects held out for validation", 0, 0.9)
    augment: str = _option("flip", "augmentation, as in fit", choices=("standard", "flip", "none"))
    background: str = _option("black", "colour of texture where there is no surface, as in fit", **_COLOUR)
    epochs: int = _option(30, "passes over the rows", 1, 100_000)
    batch_size: int = _option(32, "rows per step", 2, 65_536)
    lr: float = _option(2e-3, "peak learning rate of the image tower", 1e-9, 10)
    weight_decay: float = _option(0.05, "weight decay (AdamW) of the weight matrices", 0, 100)
    warmup: float = _option(0.05, "fraction of all steps in which the learning rate rises", 0, 1)
    seed: int = _option(0, "seed of initial weights, validation subjects, order, images and augmentation", 0, _MAX_SEED)

    def __post_init__(self) -> None:
        check_values(self)


OPTIONS = {option.name: option for option in dataclasses.fields(Options)}  # in the order of the sections


def option_name(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def rename_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as files of earlier runs name them, with their names of today."""
    values = {_RENAMED.get(name, name): value for name, value in values.items()}
    if type(shuffled := values.get("shuffle_labels", False)) is not bool:  # once a seed; None: not shuffled
        values["shuffle_labels"] = shuffled is not None
    if "tensorboard" in values:
        values["log"] = ["tensorboard"] * bool(values.pop("tensorboard"))
    return values


def check_values(settings: Options | RunOptions | PretrainOptions) -> None:
    """Check each value by itself.

    Raises:
        FacetError: a value is missing, of another type, or out of its range; names the option.
    """
    for option in dataclasses.fields(settings):
        declared = option if option.metadata else OPTIONS[option.name]  # a Recipe declares types alone
        if problem := find_problem(declared, getattr(settings, option.name), str(option.type)):
            raise FacetError(f"{option_name(option.name)}: {problem}")


def find_problem(option: dataclasses.Field[Any], value: Any, kind: str) -> str:
    """Describe what is wrong with the value of an option; empty if nothing is.

    Args:
        kind: the expected type, as it is annotated: "int | None".
    """
    kind, _, optional = kind.partition(" | ")
    if value is None:
        return "" if optional else "expected a value, found none"
    if kind.startswith("tuple"):
        if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
            return f"expected a list of names, found {value!r:.60}"
        if len(set(value)) != len(value) or "" in value or (option.default is None and not value):
            return f"{','.join(value)!r} is empty, or names one twice or an empty one"
        return next((problem for name in value if (problem := _find_odd_name(option, name))), "")
    if kind in ("int", "float"):
        if type(value) is not int and (kind == "int" or type(value) is not float):
            return f"expected a {'whole ' * (kind == 'int')}number, found {value!r:.60}"
        low, high = option.metadata["low"], option.metadata["high"]
        limits = f"at least {format_value(low)}" if high is None else f"{format_value(low)} to {format_value(high)}"
        is_in_range = low <= value and (high is None or value <= high)  # not for NaN
        return "" if is_in_range else f"expected {limits}, found {value}"
    if kind == "bool":
        return "" if type(value) is bool else f"expected true or false, found {value!r:.60}"
    if kind == "Path" and hasattr(value, "joinpath"):
        return ""
    return _find_odd_name(option, value)


def _find_odd_name(option: dataclasses.Field[Any], name: Any) -> str:
    choices, pattern = option.metadata.get("choices"), option.metadata.get("pattern")
    if not isinstance(name, str) or not name:
        return f"expected a text, found {name!r:.60}"
    if choices and name not in choices:
        return f"expected {' or '.join(choices)}, found {name!r:.60}"
    if pattern and not re.fullmatch(pattern, name):
        return f"expected {option.metadata['metavar']}, found {name!r:.60}"
    return ""


def format_value(value: object) -> str:
    """Return the value of an option as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_options(recipe: Recipe) -> str:
    """Return the options that differ from the defaults, as text for a command line."""
    texts = []
    for name, option in OPTIONS.items():
        value = getattr(recipe, name)
        if value is True:
            texts.append(option_name(name))
        elif value is not None and value != option.default:
            texts.append(f"{option_name(name)} {format_value(value)}")
    return " ".join(texts)


@dataclass(frozen=True)
class TowerConfig:
    """The image tower as it was built: enough to build it again without its weights."""

    name: str  # open_clip name, or local-dir:DIR
    pretrained: str
    config: dict[str, Any]  # open_clip's own model config: embed_dim, vision_cfg, quick_gelu
    image_size: int  # px
    mean: tuple[float, ...]  # of RGB in 0…1
    std: tuple[float, ...]
    weights_hash: str
    random_weights: bool
    background: tuple[float, ...] = (0.0, 0.0, 0.0)  # of texture where there is no surface, RGB in 0…1

    def with_background(self, background: str) -> TowerConfig:
        """Return a copy with the colour of --background."""
        if background == "mean":
            return dataclasses.replace(self, background=self.mean)
        values = "0,0,0" if background == "black" else background
        return dataclasses.replace(self, background=tuple(int(value) / 255 for value in values.split(",")))


@dataclass(frozen=True)
class InitialModel:
    """The trained model that a run starts from (--init-from).

    weights_hash: sha256 of its model.safetensors. tower_hash: of the image tower before any training, to which the prompts
    belong. trained_subjects: DATASET:SUBJECT of everybody on whom it, or a model before it, was trained. copied: what was
    copied and what was not, a line each.
    """

    name: str  # of its folder
    weights_hash: str
    tower_hash: str
    trained_subjects: tuple[str, ...]
    copied: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """config.json: the recipe, and everything else needed to use the trained model without the training data.

    cache, test_cache and prompts are hints where these were. They are no part of the run's identity.
    """

    recipe: Recipe
    tower: TowerConfig
    dataset: str
    licence: str
    content_hash: str  # of the training cache
    render: RenderSettings
    text_hash: str  # of the prompt embeddings
    text_dim: int
    random_text: bool  # the prompts were encoded with random weights
    cache: str
    test_dataset: str = ""  # if another data set is tested
    test_content_hash: str = ""
    test_cache: str = ""
    label_map: dict[str, str] | None = None  # class of the training data set → class
    prompts: str = ""  # file of the prompt embeddings; empty: a cache's
    initial: InitialModel | None = None
    version: int = RUN_VERSION

    def check_sizes(self) -> None:
        """Check the sizes that decide how much memory is allocated: a run may come from a stranger.

        Raises:
            FacetError: no model of this kind has such a size.
        """
        sizes = (
            ("text_dim", self.text_dim, 1 << 11),
            ("image_size", self.tower.image_size, 1 << 13),
            ("frames", self.recipe.frames, 1 << 12),
            ("classes", len(self.recipe.classes), 1 << 12),
        )
        for name, size, most in sizes:
            if not 0 < size <= most:
                raise FacetError(f"{name} is {size}, expected 1 to {most}")
        if not len(self.tower.mean) == len(self.tower.std) == len(self.tower.background) == 3:
            raise FacetError("mean, std and background are not of three channels")

    @property
    def is_random(self) -> bool:
        return self.tower.random_weights or self.random_text

    def differences(self, other: RunConfig) -> list[str]:
        """Return the names of the settings in which two runs differ, options first."""
        names = [option_name(name) for name in OPTIONS if getattr(self.recipe, name) != getattr(other.recipe, name)]
        known = {
            "content_hash": "the cache's content",
            "render": "the cache's render settings",
            "text_hash": "the prompt embeddings",
            "test_content_hash": "the content of the test cache",
            "label_map": "the map of class names",
        }
        if "--views" in names:
            del known["render"]  # views are part of it
        names += [text for name, text in known.items() if getattr(self, name) != getattr(other, name)]
        hashes = [one.initial.weights_hash if one.initial else None for one in (self, other)]
        return names + ["the weights of --init-from"] * (None not in hashes and hashes[0] != hashes[1])


def write_config(run: Path, config: RunConfig, name: str = CONFIG_JSON) -> None:
    write_file(run / name, canonical_json(dataclasses.asdict(config)).encode())


def read_config(run: Path, name: str = CONFIG_JSON) -> RunConfig:
    """Read config.json of a run folder.

    Raises:
        FacetError: no run here, or its config.json is damaged or of another version.
    """
    path = run / name
    if not path.is_file():
        raise _describe_missing(run, name)
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise FacetError(f"{path}: {path.stat().st_size / 1e6:.0f} MB, no run's settings; copy it again")
    data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _describe_damage(path, error) from error
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is int and version != RUN_VERSION:
        raise FacetError(
            f"{path}: run version {version}, this program reads {RUN_VERSION}; fit again, with a new --out"
        )
    check_file(run, name, data)
    try:
        if isinstance(value, dict) and isinstance(value.get("recipe"), dict):
            value["recipe"] = rename_options(value["recipe"])
        return make(RunConfig, value)
    except (ValueError, FacetError) as error:
        raise _describe_damage(path, error) from error


def _describe_damage(path: Path, error: Exception) -> FacetError:
    return FacetError(f"{path}: damaged ({first_line(error)}); choose another --out and fit again")


def _describe_missing(run: Path, name: str) -> FacetError:
    kinds = {
        CROSSVAL_JSON: "a cross-validation; name one of its folds",
        ABLATION_JSON: "an ablation; name a fold of a run",
    }
    for other, kind in kinds.items():
        if (run / other).is_file():
            folds = sorted(path.parent for path in run.glob("*/**/" + CONFIG_JSON))
            return FacetError(f"{run}: is {kind}" + (f", such as {folds[0]}" if folds else "; none is trained yet"))
    if (run / CACHE_JSON).is_file():
        return FacetError(f"{run}: is a cache, not a run; give the folder of `python -m train fit --out`")
    return FacetError(f"{run}: no run here (no {name}); make one with `python -m train fit --out {run}`")


def without_folders(config: RunConfig) -> RunConfig:
    """Return a configuration without folders of this machine."""

    def shorten(text: str) -> str:
        if text.startswith(LOCAL_DIR):
            return LOCAL_DIR + Path(text.removeprefix(LOCAL_DIR)).name
        return Path(text).name if Path(text).is_absolute() else text

    recipe = dataclasses.replace(
        config.recipe,
        model=shorten(config.recipe.model),
        pretrained=shorten(config.recipe.pretrained),
        protocol=shorten(config.recipe.protocol),
        init_from=config.recipe.init_from and shorten(config.recipe.init_from),
    )
    tower = dataclasses.replace(
        config.tower, name=shorten(config.tower.name), pretrained=shorten(config.tower.pretrained)
    )
    return dataclasses.replace(config, recipe=recipe, tower=tower, cache="", test_cache="", prompts="")
