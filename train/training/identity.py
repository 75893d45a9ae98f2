"""The identity of a run: what its config.json says, and whether a folder holds the run that is asked for."""

from __future__ import annotations

from pathlib import Path

from shared.cache import Cache
from shared.errors import FacetError
from shared.runs import CONFIG_JSON, CONFIG_TOML, METRICS_JSON, SPLIT_JSON, THRESHOLDS_JSON, WEIGHTS
from shared.schema import fingerprint
from shared.text import TextEmbeddings
from shared.weights.identity import hash_arrays
from shared.weights.models import RANDOM
from train.config import InitialModel, RunConfig, TowerConfig, read_config
from train.data.prompts import class_texts
from train.experiment import Experiment
from train.options import Recipe
from train.protocols.folds import Fold, read_split
from train.runs.out_folder import check_same_settings, check_unused
from train.tasks.task import find_task


def read_earlier(run: Path) -> RunConfig | None:
    """Read the configuration of an interrupted or finished run; None if the folder is empty or missing.

    Raises:
        FacetError: the folder is not empty, and is no run.
    """
    if (run / CONFIG_JSON).is_file():
        return read_config(run)
    check_unused(run, "run", CONFIG_JSON, (SPLIT_JSON, CONFIG_TOML))
    return None


def is_finished(run: Path, fold: Fold, recipe: Recipe) -> bool:
    """Return whether a run is trained, and tested if its fold tests anybody."""
    last = WEIGHTS if not find_task(recipe.task).has_thresholds else THRESHOLDS_JSON
    return (run / (METRICS_JSON if fold.test_subjects else last)).is_file()


def check_same(run: Path, old: RunConfig, new: RunConfig, fold: Fold) -> None:
    """Check that the run in a folder has the same settings and subjects.

    Raises:
        FacetError: the run in the folder has other settings; names them.
    """
    names = new.differences(old)
    if not names and read_split(run) != fold:
        names = ["the subjects of the fold"]
    if names == ["--epochs"] and is_finished(run, fold, new.recipe):
        raise FacetError(
            f"{run}: is finished, and its learning rate has fallen to zero; train it further in a new folder, with a new "
            f"schedule: --init-from {run} --out NEW"
        )
    check_same_settings(run, "a run", names)


def describe_run(experiment: Experiment, tower: TowerConfig | None) -> RunConfig:
    """Return config.json of an experiment.

    Args:
        tower: None before the weights are loaded: config.json then names only the requested weights.
    """
    recipe, text, cache, test = experiment.recipe, experiment.text, experiment.train, experiment.test
    is_cross = experiment.label_map is not None
    mean = class_texts(text, cache.info.settings.views)
    return RunConfig(
        recipe=recipe,
        tower=tower or TowerConfig(recipe.model, recipe.pretrained, {}, 0, (), (), "", recipe.pretrained == RANDOM),
        dataset=cache.info.dataset,
        licence=cache.info.licence,
        content_hash=cache.info.content_hash,
        render=cache.info.settings,
        text_hash=fingerprint([hash_arrays({"mean": mean}), text.logit_scale, text.weights_hash]),
        text_dim=text.embeddings.shape[2],
        random_text=text.random_weights,
        text_per_view=bool(text.views),
        cache=str(cache.path.resolve()),
        test_dataset=test.info.dataset if is_cross else "",
        test_content_hash=test.info.content_hash if is_cross else "",
        test_cache=str(test.path.resolve()) if is_cross else "",
        label_map=experiment.label_map,
        prompts=str(experiment.run.prompts.resolve()) if experiment.run.prompts else "",
    )


def check_towers_match(
    text: TextEmbeddings, tower: TowerConfig, cache: Cache, file: Path | None, initial: InitialModel | None = None
) -> None:
    """Check that the prompts were encoded by the model that the image tower belongs to.

    Args:
        file: of the prompts; None: the cache's. initial: the trained model that the tower is of.
    Raises:
        FacetError: the prompts were encoded by another model than the image tower belongs to.
    """
    if tower.random_weights or text.image_tower_hash == (initial.tower_hash if initial else tower.weights_hash):
        return
    loaded = f"--model {tower.name} --pretrained {tower.pretrained}"
    target = f"--out {file}" if file else f"--cache {cache.path}"
    raise FacetError(
        f"{file or cache.path}: its prompts were encoded by {text.model} with weights {text.pretrained!r}, but the image "
        f"tower is another model ({loaded}); run `python -m preprocess prompts {target} {loaded}`"
    )
