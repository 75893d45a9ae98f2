"""Who trained a model: the subjects of its run, and of the models that it started from (--init-from)."""

from __future__ import annotations

from pathlib import Path

from shared.errors import FacetError
from shared.runs import CONFIG_JSON, CROSSVAL_JSON, WEIGHTS, read_hashes
from train.config import InitialModel, RunConfig, read_config
from train.options import Recipe
from train.protocols.folds import Fold, list_some, read_split
from train.protocols.selection import prefix_subject


def list_trained_subjects(config: RunConfig, fold: Fold) -> set[str]:
    """Return DATASET:SUBJECT of everybody whose scans a run, or a model before it, was trained on."""
    is_prefixed = config.test_dataset not in ("", config.dataset)  # a run across data sets has such names already
    own = {name if is_prefixed else prefix_subject(config.dataset, name) for name in fold.train_subjects}
    return own | set(config.initial.trained_subjects if config.initial else ())


def read_initial_recipe(path: Path) -> Recipe:
    """Return the recipe of the model of --init-from: a run, an exported model, or a cross-validation.

    Raises:
        FacetError: none of them is there, or it is damaged.
    """
    return read_config(path, CROSSVAL_JSON if (path / CROSSVAL_JSON).is_file() else CONFIG_JSON).recipe


def find_initial_run(path: Path, fold: Fold) -> Path:
    """Return the run that a fold starts from: of a cross-validation, its fold of the same name."""
    return path / fold.name if (path / CROSSVAL_JSON).is_file() else path


def read_initial_model(run: Path, fold: Fold, dataset: str, *, prefixed: bool) -> InitialModel:
    """Read what a run needs to know of the model that it starts from, but for its weights.

    Args:
        fold: that is to be trained. dataset: that it tests. prefixed: whether its subjects are named DATASET:SUBJECT.
    Raises:
        FacetError: no finished run there, or damaged; or the fold tests people on whom that model was trained.
    """
    config, trained_fold, weights_hash = read_config(run), read_split(run), read_hashes(run).get(WEIGHTS)
    if weights_hash is None or not (run / WEIGHTS).is_file():
        raise FacetError(f"--init-from {run}: holds no trained weights ({WEIGHTS}); finish its training first")
    trained = list_trained_subjects(config, trained_fold)
    names = {name if prefixed else prefix_subject(dataset, name): name for name in fold.test_subjects}
    if seen := sorted(names[name] for name in names.keys() & trained):
        raise FacetError(
            f"--init-from {run}: was trained on {len(seen)} of the {len(names)} subjects that {fold.name} tests "
            f"({list_some(seen)}), so they are not unseen; test others (--test-subjects, "
            "or the same folds in both trainings), or start from a model that was not trained on them"
        )
    tower_hash = config.initial.tower_hash if config.initial else config.tower.weights_hash
    return InitialModel(run.resolve().name, weights_hash, tower_hash, tuple(sorted(trained)))
