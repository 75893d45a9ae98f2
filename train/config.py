"""The identity of a run: config.json, which holds its recipe, its image tower and the data it was trained on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cache import CACHE_JSON
from shared.errors import FacetError, first_line
from shared.runs import ABLATION_JSON, CONFIG_JSON, CROSSVAL_JSON, check_file
from shared.schema import RenderSettings, View, canonical_json
from shared.store.storage import write_file
from shared.typed_json import make
from shared.view_words import with_mirrored
from shared.weights.models import LOCAL_DIR
from train.option_values import option_name, rename_options
from train.options import OPTIONS, Recipe

RUN_VERSION = 5  # 5: train_views
_MAX_CONFIG_BYTES = 1 << 24


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
    belong. trained_subjects: DATASET:SUBJECT of everybody on whom it, or a model before it, was trained. copied: notes, what
    was copied and what was not, a line each.
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
    text_per_view: bool = False  # prompts differ by view
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
            (
                "text_dim × classes × views",
                self.text_dim * len(self.recipe.classes) * max(len(self.text_views), 1),
                1 << 26,
            ),
        )
        for name, size, most in sizes:
            if not 0 < size <= most:
                raise FacetError(f"{name} is {size}, expected 1 to {most}")
        if not len(self.tower.mean) == len(self.tower.std) == len(self.tower.background) == 3:
            raise FacetError("mean, std and background are not of three channels")

    @property
    def text_views(self) -> tuple[View, ...]:
        """Return the views with prompts of their own; () if all have the same."""
        return with_mirrored(self.render.views) if self.text_per_view else ()

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
