"""Who trained a model: the subjects of its run, and of the models that it started from (--init-from)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.cache import Cache, open_cache
from shared.errors import FacetError, first_line, name_some
from shared.runs import CONFIG_JSON, CROSSVAL_JSON, PRETRAIN_JSON, SPLIT_JSON, WEIGHTS, load_pretrain_json, read_hashes
from shared.typed_json import make
from shared.weights.models import LOCAL_DIR
from train.config import InitialModel, RunConfig, read_config
from train.options import Recipe
from train.protocols.folds import Fold, read_split
from train.protocols.leakage import SharedScan, find_shared_scans
from train.protocols.selection import OWN_SCANS, name_tested, prefix_subject


@dataclass(frozen=True)
class _TowerRecord:
    trained_subjects: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """Subjects of a cache, by name, on whom a model was trained, and how that is known.

    namesakes: people of the same names in another data set: no scan of theirs is one of the training.
    shared: scans of the cache and of the training under different names. doubt: why names alone decide; "" if scans were
    compared, too.
    """

    subjects: set[str]
    namesakes: tuple[str, ...] = ()
    shared: tuple[SharedScan, ...] = ()
    doubt: str = ""

    def describe_people(self) -> list[str]:
        """Return notes for the user on equal names of two people, and on two names of one."""
        lines = describe_namesakes(self.namesakes)
        if self.shared:
            who = "1 person was" if len(self.shared) == 1 else f"{len(self.shared)} people were"
            lines.append(f"{who} in training under another name: one scan is in both caches ({self.shared[0]})")
        return lines

    @property
    def notes(self) -> list[str]:
        """Return all that a test should say."""
        return self.describe_people() + [self.doubt] * bool(self.doubt)


def describe_namesakes(names: Collection[str]) -> list[str]:
    """Return a note on people who have the names of training subjects; [] if there are none."""
    if not names:
        return []
    verb = "has the name" if len(names) == 1 else "have the names"
    return [f"{name_some(sorted(names))} {verb} of training subjects, but no scan in common: taken as other people"]


def list_trained_subjects(config: RunConfig, fold: Fold) -> set[str]:
    """Return DATASET:SUBJECT of everybody whose scans a run, a model before it, or its tower was trained on."""
    return _list_own(config, fold) | list_tower_subjects(config.tower.name)


def _list_own(config: RunConfig, fold: Fold) -> set[str]:
    is_prefixed = config.test_dataset not in ("", config.dataset)  # a run across data sets has such names already
    own = {name if is_prefixed else prefix_subject(config.dataset, name) for name in fold.train_subjects}
    return own | set(config.initial.trained_subjects if config.initial else ())


def list_tower_subjects(model: str) -> set[str]:
    """Return DATASET:SUBJECT of everybody on whose scans `pretrain` or a run trained the tower of a folder (local-dir:DIR).

    Raises:
        FacetError: the record of that training is damaged.
    """
    folder = Path(model.removeprefix(LOCAL_DIR))
    if not model.startswith(LOCAL_DIR):
        return set()
    if (folder / CONFIG_JSON).is_file() and (folder / SPLIT_JSON).is_file():
        return _list_own(read_config(folder), read_split(folder))
    path = folder / PRETRAIN_JSON
    if not path.is_file():
        return set()
    try:
        names = load_pretrain_json(path).get("trained_subjects", [])
        return set(make(_TowerRecord, {"trained_subjects": names}).trained_subjects)
    except (ValueError, AttributeError, RecursionError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); pretrain again") from error


def check_tower(model: str, fold_name: str, dataset: str, tested: Sequence[str]) -> None:
    """Check that the tower that a run starts from was not trained on people whom a fold tests.

    Raises:
        FacetError: it was.
    """
    trained = list_tower_subjects(model)
    if seen := [name for name in tested if prefix_subject(dataset, name) in trained]:
        doubt = ". If they are other people, give them other names" * (dataset == OWN_SCANS)
        raise FacetError(
            f"--model {model}: its tower was trained on {len(seen)} of the {len(tested)} subjects that {fold_name} tests "
            f"({name_some(sorted(seen))}), so they are not unseen; test others (--test-subjects), or pretrain on others{doubt}"
        )


def find_seen(config: RunConfig, fold: Fold, cache: Cache, subjects: Iterable[str]) -> Seen:
    """Return which subjects of a cache a run, or a model before it, was trained on.

    People are known by DATASET:SUBJECT and, if the cache of the training is there, by their scans (`find_shared_scans`). In
    data sets of one's own scans, a name is the same person only if a scan is in both caches, or if nothing can be compared.
    """
    dataset, trained, names = cache.info.dataset, list_trained_subjects(config, fold), set(subjects)
    named = {name for name in names if prefix_subject(dataset, name) in trained}
    if cache.info.content_hash == config.content_hash:
        return Seen(named)
    if cache.info.content_hash == config.test_content_hash:  # compared before the training
        named -= {name for name in named if name_tested(name, fold.train_subjects) in fold.test_subjects}
    theirs = _open_training(config)
    if theirs is None:
        where = f"{config.cache} is gone or was built anew, so it" if config.cache else "the cache of the training"
        return Seen(named, doubt=f"{where} is not there to compare scans: names alone decide who was in training")
    several, is_own = dataset != config.dataset, dataset == OWN_SCANS
    others = {sample.subject for sample in theirs.samples} if is_own else set()
    trained_names = trained if several else {name.removeprefix(prefix_subject(dataset, "")) for name in trained}
    as_compared = {name: prefix_subject(dataset, name) if several else name_tested(name, others) for name in names}
    found, shared = set(), []
    for scan in find_shared_scans(theirs, cache, trained=others):
        people = {name for name in names if as_compared[name] in scan.subjects}
        if people and not trained_names.isdisjoint({*scan.subjects} - {as_compared[name] for name in people}):
            found |= people
            shared += [scan] * (not people <= named)
    earlier = set(config.initial.trained_subjects if config.initial else ()) | list_tower_subjects(config.tower.name)
    if not is_own:
        return Seen(named | found, shared=tuple(shared))
    before = {name for name in named if prefix_subject(dataset, name) in earlier}
    doubt = "of the models before it, names alone decide who was in training" * bool(before)
    return Seen(found | before, tuple(sorted(named - found - before)), tuple(shared), doubt)


def _open_training(config: RunConfig) -> Cache | None:
    """Open the cache that a run was trained on; None if it is not there or was built anew."""
    try:
        cache = open_cache(Path(config.cache)) if config.cache else None  # an address is no path here: not contacted
    except (FacetError, OSError):
        return None
    return cache if cache is not None and cache.info.content_hash == config.content_hash else None


def read_initial_recipe(path: Path) -> Recipe:
    """Return the recipe of the model of --init-from: a run, an exported model, or a cross-validation.

    Raises:
        FacetError: none of them is there, or it is damaged.
    """
    return read_config(path, CROSSVAL_JSON if (path / CROSSVAL_JSON).is_file() else CONFIG_JSON).recipe


def find_initial_run(path: Path, fold: Fold) -> Path:
    """Return the run that a fold starts from: of a cross-validation, its fold of the same name."""
    return path / fold.name if (path / CROSSVAL_JSON).is_file() else path


def read_initial_model(run: Path, fold_name: str, cache: Cache, tested: Sequence[str]) -> InitialModel:
    """Read what a run needs to know of the model that it starts from, but for its weights.

    Args:
        fold_name: of the fold that is to be trained. cache, tested: what it tests: subjects of a cache.
    Raises:
        FacetError: no finished run there, or damaged; or the fold tests people on whom that model was trained.
    """
    config, trained_fold, weights_hash = read_config(run), read_split(run), read_hashes(run).get(WEIGHTS)
    if weights_hash is None or not (run / WEIGHTS).is_file():
        raise FacetError(f"--init-from {run}: holds no trained weights ({WEIGHTS}); finish its training first")
    seen = find_seen(config, trained_fold, cache, tested)
    if seen.subjects:
        why = f" by a scan under two names ({seen.shared[0]})" if seen.shared else ""
        doubt = f"; {seen.doubt}. If they are other people, give them other names" if seen.doubt else ""
        raise FacetError(
            f"--init-from {run}: was trained on {len(seen.subjects)} of the {len(tested)} subjects that {fold_name} tests "
            f"({name_some(sorted(seen.subjects))}){why}, so they are not unseen; test others (--test-subjects, "
            f"or the same folds in both trainings), or start from a model that was not trained on them{doubt}"
        )
    trained = list_trained_subjects(config, trained_fold)
    tower_hash = config.initial.tower_hash if config.initial else config.tower.weights_hash
    return InitialModel(run.resolve().name, weights_hash, tower_hash, tuple(sorted(trained)), tuple(seen.notes))
