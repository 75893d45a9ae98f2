"""What decides a run: the recipe a user chooses, and what was resolved from the cache. Saved as config.json in the run."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line
from shared.runs import ABLATION_JSON, CONFIG_JSON, CROSSVAL_JSON, check_file
from shared.schema import MODALITIES, RenderSettings, canonical_json
from shared.store.storage import write_file
from shared.typed_json import make
from train.parts import FUSIONS, HEADS, LOSSES, WITH_OPTION, list_parts, read_losses

_MAX_CONFIG_BYTES = 1 << 24
RUN_VERSION = 3  # 3: hashes.json records the run's files
# Names a chosen value may have; argparse and the checks below both read them.
TUNE = re.compile(r"full|frozen|last-\d{1,3}|lora(-[1-9]\d{0,3})?")
FUSION = tuple(FUSIONS)
HEAD = tuple(HEADS)
CLASS_VECTORS = ("text", "learned")
TOWERS = ("shared", "view")
MTGF_TOKENS = ("views", "patches")
AUGMENT = ("standard", "flip", "none")
SAMPLING = ("uniform", "apex")
RELATIVE = ("none", "neutral", "onset")
DRAW = ("each", "balanced")
PRELOAD = ("none", "ram", "gpu")  # no part of the recipe: it changes no number
CLASS_WEIGHTS = ("none", "balanced")


def _option(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """A field that is also a command line option of the same name."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Recipe:
    """Everything a user may choose that changes the numbers of a run. Each field is an option of `python -m train fit`."""

    model: str = _option("", "open_clip model, or local-dir:DIR (default: the model of the cache's prompts)")
    pretrained: str = _option("", "weights: an open_clip tag, a file, or none (default: those of the cache's prompts)")
    protocol: str = _option("", "who trains and who is tested: a name of `python -m train protocols`, or a .json file of folds "
                            "(default kfold, or cross where two caches are given)")  # fmt: skip
    folds: int = _option(0, "number of folds, where the protocol leaves it open (default: the protocol's, kfold 10)")
    rounds: int = _option(0, "rounds of a protocol that repeats its folds (default: the protocol's)")
    fold: int = _option(0, "the fold to test on, 0 the first; the others train")
    test_subjects: tuple[str, ...] = _option((), "subjects to test on instead of a fold: A,B,C or a file, one a line")
    where: tuple[str, ...] = _option((), "use only some samples, by COLUMN=VALUE: a column of groups (sex, race, your own) "
                        "or subject, task, intensity, label; e.g. sex=F,site=A|B: F at A or B")  # fmt: skip
    task: str = _option("", "one of several classes; or several emotions (targets) or action units (aus) at once, yes or no "
                        "(default: the protocol's, else classes)", ("", "classes", "targets", "aus"))  # fmt: skip
    classes: tuple[str, ...] = _option((), "class names to tell apart (default: the protocol's, else all but neutral)")
    modalities: tuple[str, ...] = _option((), "image modalities to use (default: those that nine of ten rows have)")
    views: tuple[str, ...] = _option((), "views to use, written as for `preprocess build`: 0,20 or 0:15 for yaw:pitch "
                        "(default: all that the cache holds)")  # fmt: skip
    frames: int = _option(0, "frames a sequence, spread evenly (default: 6 where there are sequences, else 1)")
    sampling: str = _option(
        "uniform", "spread the frames over the whole sequence, or a window about its apex", SAMPLING
    )
    window: int = _option(0, "frames in the window about the apex (default: half of the sequence)")
    every: int = _option(1, "task aus: train on every N-th frame (all frames are tested)")
    relative: str = _option(
        "none", "features to subtract: those of the subject's neutral scan, or of the sequence's onset", RELATIVE
    )
    epochs: int = _option(20, "passes over the training samples; 0: test the model as it is before training")
    batch_size: int = _option(16, "samples a step")
    lr: float = _option(1e-3, "peak learning rate of the new layers")
    tower_lr: float = _option(0.0, "peak learning rate of the image tower (default: --lr / 100, as for pretrained weights; "
                              "with --pretrained none --lr)")  # fmt: skip
    weight_decay: float = _option(0.05, "AdamW weight decay of the weight matrices")
    warmup: float = _option(0.1, "part of all steps in which the learning rate rises")
    tune: str = _option("full", "which weights of the image tower to train: full, frozen, last-K (its last K blocks), or lora, "
                        "lora-R (low-rank changes of rank R, default 8, merged into the weights at the end)")  # fmt: skip
    layer_decay: float = _option(1.0, "factor of the tower's learning rate from each block to the one before it")
    accumulate: int = _option(1, "compute each batch in N parts, one after the other: less memory, the same gradient")
    checkpoint_activations: bool = _option(
        False, "keep no activations of the tower's blocks: less memory, a third more time"
    )
    ema: float = _option(
        0.0, "test and keep the moving average of the weights with this decay, e.g. 0.999; 0: the last weights"
    )
    towers: str = _option(
        "shared", "image towers: one for all views, or one for each view, all of which start alike (MiT)", TOWERS
    )
    fusion: str = _option("cvsa", f"how views become one face ({list_parts(FUSIONS)})", FUSION)
    head: str = _option("mtgf", f"how a face becomes a score a class ({list_parts(HEADS)})", HEAD)
    class_vectors: str = _option(
        "text", "what stands for a class: its prompts' embeddings, or random vectors that are learned", CLASS_VECTORS
    )
    mtgf_tokens: str = _option(
        "views",
        "tokens that the text of a class attends to (MTGF): one per view, or also the patch tokens of the tower",
        MTGF_TOKENS,
    )
    lambda_con: float = _option(0.1, "weight of the consistency loss; 0 builds none of it")
    lambda_vt: float = _option(0.5, "weight of each view's own text loss; 0 computes none of it")
    extra_losses: tuple[str, ...] = _option(
        (),
        "more terms of the loss, NAME=WEIGHT, parted by commas "
        f"({list_parts({name: part for name, part in LOSSES.items() if name not in WITH_OPTION})})",
    )
    class_weights: str = _option(
        "none", "balanced: rare classes count as much as frequent ones in the loss", CLASS_WEIGHTS
    )
    draw: str = _option(
        "each", "each: every training sample once an epoch; balanced: as many draws, every class equally likely", DRAW
    )
    augment: str = _option("standard", "standard: random flips, shifts, scales, colours, noise and erasures; flip: mirroring "
                         "alone (standard means this where a frozen tower's embeddings are used)", AUGMENT)  # fmt: skip
    seed: int = _option(0, "decides initial weights, folds, order and augmentation")
    fold_seed: int = _option(
        -1, "decides the folds alone, so that runs of several seeds have the same (default: --seed)"
    )
    shuffle_labels: int = _option(
        -1, "control: permute the training labels with this seed (accuracy must fall to chance)"
    )

    def __post_init__(self) -> None:
        """Raises FacetError where a value cannot be meant."""
        for name, least, most in (
            ("folds", 0, 10_000),
            ("rounds", 0, 10_000),
            ("fold", 0, 999_999),
            ("frames", 0, 256),
            ("window", 0, 100_000),
            ("every", 1, 10_000),
            ("epochs", 0, 100_000),
            ("batch_size", 1, 65_536),
            ("lr", 1e-9, 10.0),
            ("tower_lr", 0.0, 10.0),
            ("weight_decay", 0.0, 100.0),
            ("warmup", 0.0, 1.0),
            ("layer_decay", 0.01, 1.0),
            ("accumulate", 1, 65_536),
            ("ema", 0.0, 0.999999),
            ("lambda_con", 0.0, 1e3),
            ("lambda_vt", 0.0, 1e3),
            ("seed", 0, 2**32 - 1),
            ("fold_seed", -1, 2**32 - 1),
            ("shuffle_labels", -1, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not least <= value <= most:  # also refuses NaN
                raise FacetError(f"{option_name(name)}: expected {least:g} to {most:g}, found {value}")
        for option in dataclasses.fields(self):
            choices = option.metadata["choices"]
            if choices and getattr(self, option.name) not in choices:
                raise FacetError(f"{option_name(option.name)}: expected {' or '.join(choices)}")
        if not TUNE.fullmatch(self.tune):
            raise FacetError(f"--tune: expected full, frozen, last-K, lora or lora-R, found {self.tune!r}")
        if self.mtgf_tokens == "patches" and self.head != "mtgf":
            raise FacetError(f"--mtgf-tokens patches: --head {self.head} looks at none; leave one of them out")
        if self.mtgf_tokens == "patches" and self.fusion == "late":
            raise FacetError("--mtgf-tokens patches: --fusion late scores each view alone; leave one of them out")
        if self.mtgf_tokens == "patches" and self.towers == "view":
            raise FacetError("--mtgf-tokens patches: takes one tower; leave out --towers view")
        if self.class_vectors == "learned" and self.head == "linear":
            raise FacetError("--class-vectors learned: --head linear has vectors of its own; leave one of them out")
        if self.towers == "view" and self.tune not in ("full", "frozen"):
            raise FacetError(f"--towers view: expected --tune full, found {self.tune}")
        read_losses(self.extra_losses)
        if self.draw == "balanced" and self.is_multilabel:
            raise FacetError(
                f"--draw balanced: a sample of --task {self.task} has no one class; use --class-weights balanced"
            )
        if unknown := [m for m in self.modalities if m not in MODALITIES]:
            raise FacetError(f"--modalities: {','.join(unknown)} is none of {','.join(MODALITIES)}")
        if odd := [text for text in self.where if not all(part.strip() for part in text.partition("="))]:
            raise FacetError(f"--where: expected COLUMN=VALUE, parted by commas, found {odd[0]!r}")
        for name in ("modalities", "views", "classes", "test_subjects", "where", "extra_losses"):
            values = getattr(self, name)
            if len(set(values)) != len(values) or "" in values:
                raise FacetError(f"{option_name(name)}: {','.join(values)!r} names one twice, or an empty one")

    @property
    def is_multilabel(self) -> bool:
        """Whether several classes may hold at once, each yes or no."""
        return self.task in ("targets", "aus")

    @property
    def loss_weights(self) -> dict[str, float]:
        """Name → weight of every term beside the loss of the class scores; 0: not computed."""
        return {"con": self.lambda_con, "vt": self.lambda_vt, **read_losses(self.extra_losses)}

    @property
    def seed_of_folds(self) -> int:
        return self.seed if self.fold_seed < 0 else self.fold_seed


def option_name(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def describe_options(recipe: Recipe) -> str:
    """The options in which a recipe differs from the defaults, as they would be typed."""
    texts = []
    for option in dataclasses.fields(Recipe):
        value = getattr(recipe, option.name)
        if value != option.default:
            text = (
                ",".join(value)
                if isinstance(value, tuple)
                else f"{value:g}"
                if isinstance(value, float)
                else str(value)
            )
            texts.append(option_name(option.name) if value is True else f"{option_name(option.name)} {text}")
    return " ".join(texts) or "all defaults"


@dataclass(frozen=True)
class TowerConfig:
    """The image tower as it was built: enough to build it again without its weights."""

    name: str  # open_clip name, or local-dir:DIR
    pretrained: str
    config: dict[str, Any]  # open_clip's own model config: embed_dim, vision_cfg, quick_gelu
    image_size: int
    mean: tuple[float, ...]  # over RGB in 0…1
    std: tuple[float, ...]
    weights_hash: str
    random_weights: bool


@dataclass(frozen=True)
class RunConfig:
    """config.json: the resolved recipe and everything needed to use the trained model without the training data."""

    recipe: Recipe  # with every default filled in
    tower: TowerConfig
    dataset: str
    licence: str
    content_hash: str  # of the cache the run was trained on
    render: RenderSettings
    text_hash: str  # of the prompt embeddings
    text_dim: int
    random_text: bool  # the prompts were encoded with random weights
    cache: str  # where the cache was; a hint, no part of what the run is
    # Where another data set is tested:
    test_dataset: str = ""
    test_content_hash: str = ""
    test_cache: str = ""  # a hint
    label_map: dict[str, str] | None = None  # class of the training data set → class
    prompts: str = ""  # the file they were in, if it was not the cache's: a hint
    version: int = RUN_VERSION

    def check_sizes(self) -> None:
        """Checks what memory is asked for by, where a run comes from a stranger.

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
        for name in ("mean", "std"):
            if len(getattr(self.tower, name)) != 3:
                raise FacetError(f"{name} is not of three channels")

    @property
    def is_random(self) -> bool:
        return self.tower.random_weights or self.random_text

    def differences(self, other: RunConfig) -> list[str]:
        """Names of the settings in which two runs differ, the user's own first."""
        names = [
            option_name(f.name)
            for f in dataclasses.fields(Recipe)
            if getattr(self.recipe, f.name) != getattr(other.recipe, f.name)
        ]
        for name, text in (
            ("content_hash", "the cache's content"),
            ("render", "the cache's render settings"),
            ("text_hash", "the prompt embeddings"),
            ("test_content_hash", "the content of the test cache"),
            ("label_map", "the map of class names"),
        ):
            if name == "render" and "--views" in names:  # they are part of it
                continue
            if getattr(self, name) != getattr(other, name):
                names.append(text)
        return names


def write_config(run: Path, config: RunConfig, name: str = CONFIG_JSON) -> None:
    write_file(run / name, canonical_json(dataclasses.asdict(config)).encode())


def read_config(run: Path, name: str = CONFIG_JSON) -> RunConfig:
    """config.json of a run folder.

    Raises:
        FacetError: no run here, or its config.json is damaged or of another version.
    """
    path = run / name
    if not path.is_file():
        for other, what in (
            (CROSSVAL_JSON, "a cross-validation; name one of its folds"),
            (ABLATION_JSON, "an ablation; name a fold of one of its runs"),
        ):
            if (run / other).is_file():
                folds = sorted(path.parent for path in run.glob("*/**/" + CONFIG_JSON))
                raise FacetError(f"{run}: is {what}" + (f", such as {folds[0]}" if folds else "; none is trained yet"))
        raise FacetError(f"{run}: no run here (no {name}); make one with `python -m train fit --out {run}`")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise FacetError(f"{path}: {path.stat().st_size / 1e6:.0f} MB, no run's settings; copy it again")
    data = path.read_bytes()
    try:
        value = json.loads(data)
        version = value.get("version") if isinstance(value, dict) else None
        if type(version) is int and version != RUN_VERSION:
            raise FacetError(f"{path}: run version {version}, this program reads {RUN_VERSION}; fit again")
    except (ValueError, RecursionError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); choose another --out and fit again") from error
    check_file(run, name, data)
    try:
        return make(RunConfig, value)
    except (ValueError, FacetError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); choose another --out and fit again") from error
