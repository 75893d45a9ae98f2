"""What all folds of a training have in common: data, folds, prompts, and the options with every default resolved."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from shared.cache import open_cache
from shared.errors import FacetError
from shared.runs import CONFIG_TOML
from shared.store.storage import write_file
from shared.text import TextEmbeddings
from train.config import InitialModel
from train.option_parser import format_toml
from train.options import Options, Recipe, RunOptions
from train.protocols.folds import Fold, hold_out
from train.protocols.selection import keep_classes, name_in_cache, prefix_subject
from train.protocols.trained_subjects import check_tower, find_initial_run, read_initial_model, read_initial_recipe
from train.resolve import find_text, resolve_embeddings, resolve_model
from train.split import Split, split_folds
from train.tasks.item import Item
from train.tasks.task import find_task


@dataclass(frozen=True)
class Experiment(Split):
    """What all folds have in common.

    options, run: as the user chose them, but for what embeddings of a frozen tower change. recipe: resolved, with fold 0.
    text: the prompts of the classes.
    """

    run: RunOptions
    recipe: Recipe
    text: TextEmbeddings

    @property
    def embeddings(self) -> Path | None:
        """Return the folder of the frozen tower's embeddings; None if images are read."""
        is_used = self.recipe.tune == "frozen" and self.run.embeddings != "off"
        return Path(self.run.embeddings) if is_used else None

    def describe(self) -> list[str]:
        """Return lines for the user: how class names are mapped across data sets, and the notes."""
        lines = [f"note: {note}" for note in self.notes]
        if self.label_map is not None:
            lines.insert(0, "label map: " + ", ".join(f"{name} → {word}" for name, word in self.label_map.items()))
        return lines

    def fold(self, number: int) -> Fold:
        """Return a fold by its index.

        Raises:
            FacetError: there is no such fold, or it cannot be validated as --validate says.
        """
        num = len(self.folds.folds)
        if not 0 <= number < num:
            raise FacetError(f"--fold {number}: there is no such fold; {num} folds are numbered 0 to {num - 1}")
        fold = self.folds.folds[number]
        return hold_out(fold, self.recipe.validate, self.folds.seed) if self.recipe.validate else fold

    def check_folds(self, only: int | None) -> None:
        """Check, before anything is written, that the folds to train are there and can be validated; only: one of them."""
        for number in range(len(self.folds.folds)) if only is None else (only,):
            self.fold(number)

    def find_initial(self, fold: Fold) -> tuple[Path, InitialModel] | None:
        """Return the run that a fold starts from (--init-from), and what is known of its model; None: from no run.

        Raises:
            FacetError: it has no trained model; or the fold tests people on whom that, or the tower of --model, was trained.
        """
        names = fold.test_subjects
        if self.train.info.dataset != self.test.info.dataset:
            names = tuple(name.removeprefix(prefix_subject(self.test.info.dataset, "")) for name in names)
        elif self.test is not self.train:
            names = tuple(name_in_cache(name, fold.train_subjects) for name in names)
        check_tower(self.recipe.model, fold.name, self.test.info.dataset, names)
        if self.recipe.init_from is None:
            return None
        run = find_initial_run(Path(self.recipe.init_from), fold)
        return run, read_initial_model(run, fold.name, self.test, names)

    def items_of(self, fold: Fold) -> tuple[list[Item], list[Item]]:
        """Return the samples of a fold to train on, and those to test on."""
        test = set(fold.test_subjects)
        tested = [item for item in self.test_items if item.subject in test]
        return self._take_stride(fold, fold.trained_subjects), keep_classes(tested, fold.test_classes)

    def validation_items(self, fold: Fold) -> list[Item]:
        """Return the samples of a fold to validate on."""
        return self._take_stride(fold, set(fold.validation_subjects))

    def _take_stride(self, fold: Fold, subjects: set[str]) -> list[Item]:
        chosen = keep_classes([item for item in self.train_items if item.subject in subjects], fold.train_classes)
        return chosen[:: self.recipe.frame_stride] if find_task(self.recipe.task).every_frame else chosen


def prepare_experiment(options: Options, run: RunOptions, out: Path) -> Experiment:
    """Open the caches, resolve every default, build the folds, and check all that can be checked before training.

    Args:
        out: folder of the results; nothing is written there.
    Raises:
        FacetError, CacheError: anything the user can correct.
    """
    options, run, notes = resolve_embeddings(options, run, out)
    if run.cache is None:
        raise FacetError("--cache: give the folder of a finished cache")
    train = open_cache(run.cache)
    test = None if run.test_cache is None else open_cache(run.test_cache)
    if test is not None and test.info.content_hash == train.info.content_hash:
        raise FacetError(f"{run.test_cache}: holds the same scans as {run.cache}; leave --test-cache out")
    split = split_folds(train, options, test)
    caches = (split.train,) if test is None else (split.train, split.test)
    text = find_text(options, split.options.classes or (), caches, run.prompts)
    initial = None if options.init_from is None else read_initial_recipe(Path(options.init_from))
    recipe = resolve_model(split.options, text, initial)
    changes = {"options": options, "notes": (*notes, *split.notes)}
    return Experiment(**vars(split) | changes, run=run, recipe=recipe, text=text)


def write_options(folder: Path, experiment: Experiment, fold: int | None) -> None:
    """Write config.toml of a run folder, with which --config repeats the run.

    Args:
        fold: index of the run's fold; None: the folder is of all folds.
    """
    recipe, run = experiment.recipe, experiment.run
    options = dataclasses.replace(
        experiment.options, fold=fold, test_subjects=recipe.test_subjects, validate=recipe.validate
    )
    if options.protocol and options.protocol.endswith(".json"):
        options = dataclasses.replace(options, protocol=str(Path(options.protocol).absolute()))
    if options.init_from is not None:
        options = dataclasses.replace(options, init_from=str(Path(options.init_from).absolute()))
    paths = {name: getattr(run, name) for name in ("cache", "test_cache", "prompts")}
    run = dataclasses.replace(run, **{name: path and path.absolute() for name, path in paths.items()})
    write_file(folder / CONFIG_TOML, format_toml(options, run, recipe).encode())
