"""Who trained a model: the subjects of its run, and of the models that it started from (--init-from)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.runs import CONFIG_JSON, CROSSVAL_JSON, WEIGHTS, read_hashes
from train.config import InitialModel, RunConfig, read_config
from train.options import Recipe
from train.protocols.folds import Fold, list_some, read_split
from train.protocols.selection import prefix_subject

OWN_SCANS = "folder"  # every data set of one's own scans has this name, so equal names may be two people


@dataclass(frozen=True)
class Seen:
    """Subjects of a cache, by name, on whom a model was trained, and how that is known.

    namesakes: people of the same names in another data set: no scan of theirs is one of the training.
    doubt: why names alone decide, although they may be of two people; "" if they do not, or must not.
    """

    subjects: set[str]
    namesakes: tuple[str, ...] = ()
    doubt: str = ""

    def describe_namesakes(self) -> list[str]:
        """Return a note for the user; [] without namesakes."""
        if not self.namesakes:
            return []
        verb = "has the name" if len(self.namesakes) == 1 else "have the names"
        return [
            f"{list_some(self.namesakes)} {verb} of training subjects, but no scan in common: taken as other people"
        ]


def list_trained_subjects(config: RunConfig, fold: Fold) -> set[str]:
    """Return DATASET:SUBJECT of everybody whose scans a run, or a model before it, was trained on."""
    is_prefixed = config.test_dataset not in ("", config.dataset)  # a run across data sets has such names already
    own = {name if is_prefixed else prefix_subject(config.dataset, name) for name in fold.train_subjects}
    return own | set(config.initial.trained_subjects if config.initial else ())


def find_seen(config: RunConfig, fold: Fold, cache: Cache, subjects: Iterable[str]) -> Seen:
    """Return which subjects of a cache a run, or a model before it, was trained on.

    In data sets of one's own scans, a name is the same person only if a scan is in both caches, or if the cache of the training
    cannot be compared.
    """
    dataset = cache.info.dataset
    trained = list_trained_subjects(config, fold)
    found = {name for name in subjects if prefix_subject(dataset, name) in trained}
    hashes = (config.content_hash, config.test_content_hash)
    if not found or dataset != OWN_SCANS or cache.info.content_hash in hashes:
        return Seen(found)
    earlier = set(config.initial.trained_subjects if config.initial else ())
    theirs = [_list_scans(*one) for one in ((config.cache, hashes[0]), (config.test_cache, hashes[1])) if one[0]]
    if not theirs or None in theirs or any(prefix_subject(dataset, name) in earlier for name in found):
        where = config.cache or "the cache of the training"
        doubt = f"both data sets are called {OWN_SCANS}, and {where} is not there to compare scans: names alone decide"
        return Seen(found, doubt=doubt)
    scans = set().union(*(some for some in theirs if some is not None))
    same = {sample.subject for sample in cache.samples if sample.source_hash in scans} & found
    return Seen(same, tuple(sorted(found - same)))


def _list_scans(path: str, content_hash: str) -> set[str] | None:
    """Return the hashes of all scans of a run's cache; None if that is not there or was built anew."""
    try:
        cache = open_cache(Path(path))  # an address in a received run is no path here, and is not contacted
    except (FacetError, OSError):
        return None
    is_same = cache.info.content_hash == content_hash
    return {sample.source_hash for sample in cache.samples} - {""} if is_same else None


def read_initial_recipe(path: Path) -> Recipe:
    """Return the recipe of the model of --init-from: a run, an exported model, or a cross-validation.

    Raises:
        FacetError: none of them is there, or it is damaged.
    """
    return read_config(path, CROSSVAL_JSON if (path / CROSSVAL_JSON).is_file() else CONFIG_JSON).recipe


def find_initial_run(path: Path, fold: Fold) -> Path:
    """Return the run that a fold starts from: of a cross-validation, its fold of the same name."""
    return path / fold.name if (path / CROSSVAL_JSON).is_file() else path


def read_initial_model(run: Path, fold: Fold, cache: Cache, *, prefixed: bool) -> InitialModel:
    """Read what a run needs to know of the model that it starts from, but for its weights.

    Args:
        fold: that is to be trained. cache: that it tests. prefixed: whether its subjects are named DATASET:SUBJECT.
    Raises:
        FacetError: no finished run there, or damaged; or the fold tests people on whom that model was trained.
    """
    config, trained_fold, weights_hash = read_config(run), read_split(run), read_hashes(run).get(WEIGHTS)
    if weights_hash is None or not (run / WEIGHTS).is_file():
        raise FacetError(f"--init-from {run}: holds no trained weights ({WEIGHTS}); finish its training first")
    names = [
        name.removeprefix(prefix_subject(cache.info.dataset, "")) if prefixed else name for name in fold.test_subjects
    ]
    seen = find_seen(config, trained_fold, cache, names)
    if seen.subjects:
        doubt = f"; {seen.doubt}. If they are other people, give them other names" if seen.doubt else ""
        raise FacetError(
            f"--init-from {run}: was trained on {len(seen.subjects)} of the {len(names)} subjects that {fold.name} tests "
            f"({list_some(sorted(seen.subjects))}), so they are not unseen; test others (--test-subjects, "
            f"or the same folds in both trainings), or start from a model that was not trained on them{doubt}"
        )
    trained = list_trained_subjects(config, trained_fold)
    tower_hash = config.initial.tower_hash if config.initial else config.tower.weights_hash
    notes = tuple(seen.describe_namesakes())
    return InitialModel(run.resolve().name, weights_hash, tower_hash, tuple(sorted(trained)), notes)
