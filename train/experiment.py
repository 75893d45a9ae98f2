"""What is trained on and what is tested: from one cache or two, a recipe and a protocol to items and folds, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.cache import Cache, open_cache
from shared.errors import CacheError, FacetError
from shared.labels import NEUTRAL
from shared.text import TextEmbeddings
from shared.views import parse_views
from train.config import Recipe
from train.data.items import (
    Item,
    choose_classes,
    choose_frames,
    choose_modalities,
    describe_unlabelled,
    find_rows_in_use,
    gather_items,
    is_labelled,
)
from train.data.prompts import read_prompts
from train.inference.score import take_views
from train.model.patch_tokens import check_patch_tokens
from train.protocols.folds import Fold, FoldList, check_folds_fit, list_some, read_folds, split_by_subjects
from train.protocols.leakage import check_experiment, check_labels, describe_uncompared, find_shared_scans
from train.protocols.named import CROSS_PROTOCOL, DEFAULT_PROTOCOL, PROTOCOLS, Protocol, check_datasets, find_protocol
from train.protocols.selection import (
    build_cross_fold,
    build_folds,
    build_label_map,
    describe_gaps,
    map_items,
    prefix_subjects,
    select_items,
    select_test_items,
)
from train.reporting.groups import keep_where, report_columns
from train.training.optimizer import default_tower_rate


@dataclass(frozen=True)
class Experiment:
    """Everything that folds have in common. `test` is `train` itself unless another data set is tested.

    label_map: class of the training data set → class, where another data set is tested. notes: what a user should know.
    """

    train: Cache
    test: Cache
    recipe: Recipe  # with every default filled in; its fold is not looked at
    text: TextEmbeddings  # of the recipe's classes
    train_items: tuple[Item, ...]  # labelled ones, that the protocol is about
    test_items: tuple[Item, ...]
    folds: FoldList
    label_map: dict[str, str] | None
    notes: tuple[str, ...]
    prompts: Path | None = None  # the file that text is from; None: a cache's

    def describe(self) -> list[str]:
        """Lines for a user: how class names are mapped across data sets, and the notes."""
        lines = [f"note: {note}" for note in self.notes]
        if self.label_map is not None:
            lines.insert(0, "label map: " + ", ".join(f"{name} → {word}" for name, word in self.label_map.items()))
        return lines

    def fold(self, number: int) -> Fold:
        """
        Raises:
            FacetError: there is no such fold.
        """
        num = len(self.folds.folds)
        if not 0 <= number < num:
            raise FacetError(f"--fold {number}: there is no such fold; {num} folds are numbered 0 to {num - 1}")
        return self.folds.folds[number]

    def items_of(self, fold: Fold) -> tuple[list[Item], list[Item]]:
        """Items to train on and to test on."""
        train, test = set(fold.train_subjects), set(fold.test_subjects)
        chosen = [item for item in self.train_items if item.subject in train]
        if self.recipe.task == "aus" and self.recipe.every > 1:
            chosen = chosen[:: self.recipe.every]
        return chosen, [item for item in self.test_items if item.subject in test]


def prepare_experiment(
    cache_path: Path, test_path: Path | None, recipe: Recipe, prompts: Path | None = None
) -> Experiment:
    """Opens the caches, fills in every default, builds the folds, and checks all that can be checked before training.

    Args:
        test_path: the cache of another data set to test on; None: tested are other subjects of the same cache.
        prompts: a file of prompt embeddings to take instead of a cache's.
    Raises:
        FacetError, CacheError: anything the user can mend.
    """
    train, recipe = _choose_views(open_cache(cache_path), recipe)
    check_labels(train)
    if test_path is None:
        return _prepare_within(train, recipe, prompts)
    test = open_cache(test_path)
    check_labels(test)
    if test.info.content_hash == train.info.content_hash:
        raise FacetError(f"{test_path}: holds the same scans as {cache_path}; leave --test-cache out")
    return _prepare_across(train, test, recipe, prompts)


def _choose_views(cache: Cache, recipe: Recipe) -> tuple[Cache, Recipe]:
    """The cache with the recipe's views, in the cache's order; a recipe that names all of them is one that names none."""
    if not recipe.views:
        return cache, recipe
    stored = cache.info.settings.views
    # as written: a cache's may have more digits
    wanted = {str(view): view for view in parse_views(",".join(recipe.views))}
    if lacking := [text for text in wanted if text not in map(str, stored)]:
        cache.with_views([wanted[text] for text in lacking])  # refuses them
    chosen = tuple(view for view in stored if str(view) in wanted)
    is_all = len(chosen) == len(stored)
    return cache.with_views(chosen), dataclasses.replace(recipe, views=() if is_all else tuple(map(str, chosen)))


@dataclass(frozen=True)
class Split:
    """A cache's items and their folds; recipe: with the defaults that these decide."""

    recipe: Recipe
    items: tuple[Item, ...]
    folds: FoldList
    notes: tuple[str, ...]


def split_folds(cache: Cache, recipe: Recipe) -> Split:
    """Applies the recipe's protocol, or its file of folds, to a cache.

    Raises:
        FacetError: the protocol is for other data sets, wants more than there is, or a subject would stand on both sides.
    """
    imported = read_folds(Path(recipe.protocol)) if recipe.protocol.endswith(".json") else None
    name = imported.protocol if imported else recipe.protocol or DEFAULT_PROTOCOL
    # Folds that someone made by hand may be called anything: like k-fold they take all labelled samples.
    protocol = PROTOCOLS[DEFAULT_PROTOCOL] if imported and name not in PROTOCOLS else find_protocol(name)
    check_datasets(protocol, cache.info.dataset)
    _check_sequences(cache, recipe)
    protocol, task = _choose_task(protocol, recipe)
    wanted = recipe.classes or (imported.classes if imported else ()) or protocol.classes
    classes = choose_classes(cache, wanted, task)
    recipe = dataclasses.replace(recipe, protocol=name, task=task, classes=classes)
    members = None if imported is None else set(imported.subjects)

    def keep_labelled(gathered: Sequence[Item]) -> list[Item]:
        kept = [item for item in gathered if is_labelled(item, task, classes)]
        if not kept:
            what = "labelled" if task == "classes" else "known to show or not to show"
            raise FacetError(f"{cache.path}: no valid sample is {what} {', '.join(classes)}; see --classes")
        return kept

    def find_in_use(gathered: Sequence[Item]) -> list[Item]:
        chosen = select_items(protocol, keep_labelled(gathered), classes)
        return [item for item in chosen if members is None or item.subject in members]

    modalities, modality_notes = _choose_modalities(cache, recipe, find_in_use)
    recipe = dataclasses.replace(recipe, modalities=modalities)
    usable = keep_labelled(gathered := _gather(cache, recipe))
    items = select_items(protocol, usable, classes)
    subjects = {item.subject for item in items}
    num_folds, num_rounds = recipe.folds or None, recipe.rounds or None
    notes = [*modality_notes, *_describe_groups(cache, recipe), *describe_unlabelled(cache, gathered, task, classes)]
    if recipe.test_subjects:
        fold = split_by_subjects(subjects, recipe.test_subjects)
        folds = FoldList(name, cache.info.dataset, recipe.seed_of_folds, classes, (fold,))
    elif imported is not None:
        if num_folds or num_rounds:
            raise FacetError("--folds and --rounds: are decided by the file of folds; leave them out")
        folds = imported
        notes += check_folds_fit(folds, subjects, dataset=cache.info.dataset)
    else:
        options = {"num_folds": num_folds, "num_rounds": num_rounds}
        seed = recipe.seed_of_folds
        folds = build_folds(protocol, items, dataset=cache.info.dataset, classes=classes, seed=seed, **options)
        notes += describe_gaps(protocol, usable, classes, **options)
    notes += _describe_references(items, recipe)
    notes += check_experiment(folds, items, items, classes, task, find_shared_scans(cache))
    notes += describe_uncompared(cache)
    recipe = dataclasses.replace(recipe, frames=choose_frames(items, recipe.frames))
    return Split(recipe, tuple(items), folds, tuple(notes))


def _prepare_within(cache: Cache, recipe: Recipe, prompts: Path | None) -> Experiment:
    dealt = split_folds(cache, recipe)
    recipe, text = _with_text(dealt.recipe, (cache,), prompts)
    return Experiment(cache, cache, recipe, text, dealt.items, dealt.items, dealt.folds, None, dealt.notes, prompts)


def _prepare_across(train: Cache, test: Cache, recipe: Recipe, prompts: Path | None) -> Experiment:
    if recipe.test_subjects or recipe.protocol.endswith(".json"):
        raise FacetError("--test-cache: all of its subjects are tested; leave --test-subjects and files of folds out")
    protocol = find_protocol(recipe.protocol or CROSS_PROTOCOL)
    check_datasets(protocol, train.info.dataset, test.info.dataset)
    _check_sequences(train, recipe)
    protocol, task = _choose_task(protocol, recipe)
    if task != "classes":
        raise FacetError(f"--task {task}: across data sets only classes are supported")
    classes, label_map = build_label_map(protocol, train.info.class_names, test.info.class_names, recipe.classes)
    recipe = dataclasses.replace(recipe, protocol=protocol.name, task=task, classes=classes)

    def find_training(gathered: Sequence[Item]) -> list[Item]:
        return [item for item in map_items(gathered, label_map) if item.class_name in classes]

    def find_tested(gathered: Sequence[Item]) -> list[Item]:
        return select_test_items(protocol, gathered, classes)

    modalities, modality_notes = _choose_modalities(train, recipe, find_training)
    there, more = _choose_modalities(test, recipe, find_tested)
    modalities = tuple(m for m in modalities if m in there)
    if not modalities:
        raise FacetError(f"{train.path}, {test.path}: no modality is in nine of ten rows of both; use --modalities")
    test = take_views(test, train.info.settings, modalities, whose=str(train.path))
    recipe = dataclasses.replace(recipe, modalities=modalities)
    recipe, text = _with_text(recipe, (train, test), prompts)
    train_items, test_items = find_training(_gather(train, recipe)), find_tested(_gather(test, recipe))
    if train.info.dataset != test.info.dataset:  # otherwise equal names are the same people
        train_items = prefix_subjects(train_items, train.info.dataset)
        test_items = prefix_subjects(test_items, test.info.dataset)
    fold = build_cross_fold(protocol, train_items, test_items)
    title = f"{train.info.dataset} to {test.info.dataset}"
    folds = FoldList(protocol.name, title, recipe.seed_of_folds, classes, (fold,))
    notes = [*modality_notes, *more, *_describe_groups(test, recipe)]
    notes += check_experiment(folds, train_items, test_items, classes, task, find_shared_scans(train, test))
    notes += describe_uncompared(train, test)
    notes += _describe_references([*train_items, *test_items], recipe)
    recipe = dataclasses.replace(recipe, frames=choose_frames(train_items, recipe.frames))
    return Experiment(
        train, test, recipe, text, tuple(train_items), tuple(test_items), folds, label_map, tuple(notes), prompts
    )


def _choose_modalities(
    cache: Cache, recipe: Recipe, find_in_use: Callable[[Sequence[Item]], list[Item]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As `choose_modalities`, by the rows of those items that would be in use if every modality were looked at."""
    every = dataclasses.replace(recipe, modalities=cache.info.settings.modalities)
    rows = find_rows_in_use(find_in_use(_gather(cache, every)))
    return choose_modalities(cache, recipe.modalities, rows)


def _gather(cache: Cache, recipe: Recipe) -> list[Item]:
    return keep_where(cache, gather_items(cache, recipe), recipe.where)


def _describe_groups(cache: Cache, recipe: Recipe) -> list[str]:
    notes = [f"of {cache.path.name}, only samples with {' and '.join(recipe.where)}"] if recipe.where else []
    return notes + report_columns(cache)[1]


def _choose_task(protocol: Protocol, recipe: Recipe) -> tuple[Protocol, str]:
    task = recipe.task or protocol.task
    if task != protocol.task and protocol.datasets:
        raise FacetError(
            f"--task {task}: {protocol.name} is about {protocol.task}; leave --task out, or use --protocol {DEFAULT_PROTOCOL}"
        )
    if recipe.every > 1 and task != "aus":
        raise FacetError(
            "--every: is for action units, where every frame is a sample; --frames says how many a sequence gives"
        )
    return dataclasses.replace(protocol, task=task), task


def _check_sequences(cache: Cache, recipe: Recipe) -> None:
    """Single scans have no frames to choose from: the same image would be looked at again and again."""
    if not cache.sequences and (recipe.frames > 1 or recipe.window or recipe.sampling == "apex"):
        raise FacetError(f"{cache.path}: holds no sequences; leave --frames, --sampling and --window out")


def _with_text(recipe: Recipe, caches: Sequence[Cache], prompts: Path | None) -> tuple[Recipe, TextEmbeddings]:
    """The recipe with its model, and its classes' prompts, from their file or the first cache that has them all."""
    text = _find_text(recipe, caches) if prompts is None else read_prompts(prompts, recipe.model, recipe.classes)
    pretrained = recipe.pretrained or text.pretrained
    tower_lr = recipe.tower_lr or default_tower_rate(recipe.lr, pretrained)
    recipe = dataclasses.replace(recipe, model=recipe.model or text.model, pretrained=pretrained, tower_lr=tower_lr)
    if recipe.tune == "frozen":  # towers that start alike stay alike
        recipe = dataclasses.replace(recipe, towers="shared")
    check_patch_tokens(recipe)
    return recipe, text


def _find_text(recipe: Recipe, caches: Sequence[Cache]) -> TextEmbeddings:
    errors = []
    for cache in caches:
        try:
            return cache.read_text(recipe.model or None).select(recipe.classes)
        except CacheError as error:
            errors.append(error)
    raise errors[-1]


def _describe_references(items: Sequence[Item], recipe: Recipe) -> list[str]:
    if recipe.relative == "none":
        return []
    if recipe.relative == "neutral" and NEUTRAL in recipe.classes:
        raise FacetError(
            "--relative neutral: a neutral scan would be compared with itself; leave neutral out of --classes"
        )
    lacking = sorted({item.subject for item in items if item.reference is None})
    note = "--relative neutral: test subjects' own neutral scans are used, as someone known beforehand would allow"
    notes = [note] if recipe.relative == "neutral" else []
    if lacking:
        notes.append(
            f"{len(lacking)} subjects have nothing to be compared with, and are seen as they are: {list_some(lacking)}"
        )
    return notes
