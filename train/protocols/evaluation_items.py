"""Which of a cache's items a finished run is tested on, and which are left out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from shared.cache import Cache
from shared.errors import CacheError
from shared.labels import find_expression, map_class_names, plain_word
from train.config import Recipe, RunConfig
from train.data.items import Item, gather_items, is_labelled
from train.protocols.folds import Fold, list_some
from train.protocols.named import DEFAULT_PROTOCOL, PROTOCOLS
from train.protocols.selection import prefix_subject, prefix_subjects, select_items, select_test_items
from train.reporting.groups import keep_where


def is_own_test(cache: Cache, config: RunConfig) -> bool:
    """Whether a cache holds the scans that the run itself was tested on."""
    return cache.info.content_hash == (config.test_content_hash or config.content_hash)


def find_tested(cache: Cache, config: RunConfig, fold: Fold) -> list[Item]:
    """The run's own test again; in another cache every item with one of its classes, of people who did not train. Prints what
    is left out there.

    Raises:
        CacheError: there is none.
    """
    recipe = config.recipe
    gathered = _gather_in_own_words(cache, config)
    items = [item for item in gathered if is_labelled(item, recipe.task, recipe.classes)]
    if is_own_test(cache, config):
        items = _select_own(keep_where(cache, items, recipe.where), config, fold)
    else:
        labelled = items
        if cache.info.dataset == config.dataset:  # the same people may be in it
            items = _leave_out_trained(items, config, fold)
        print(
            f"note: {cache.path} holds other scans than those of this run's own test; tested is every sample with one of its "
            "classes, of people who did not train"
        )
        if left_out := _describe_left_out(gathered, labelled, items, recipe):
            print(f"note: left out: {'; '.join(left_out)}")
    if not items:
        raise CacheError(f"{cache.path}: no sample of an unseen subject is labelled {', '.join(recipe.classes)}")
    return items


def _gather_in_own_words(cache: Cache, config: RunConfig) -> list[Item]:
    """Every item; those of another data set with their class in the run's words, where these are coarser (anger: negative).

    Where the other data set's are, such samples keep their words, and a line says so: what the run says of them was never
    learned in those.
    """
    recipe, info = config.recipe, cache.info
    items = gather_items(cache, recipe)
    if recipe.is_multilabel:
        return items
    items = _spell_as(items, recipe.classes)
    if info.dataset == (config.test_dataset or config.dataset):
        return items
    ours = {name: word for name, word in map_class_names(info.class_names, recipe.classes).items() if word != name}
    if ours:
        print("label map: " + ", ".join(f"{name} → {word}" for name, word in ours.items()))
    theirs = {name: word for name, word in map_class_names(recipe.classes, info.class_names).items() if word != name}
    if any(item.class_name in theirs.values() and item.class_name not in recipe.classes for item in items):
        words = ", ".join(dict.fromkeys(theirs.values()))
        print(
            f"note: {info.dataset} says {words} for {', '.join(theirs)}: such samples cannot be judged, and the decision stays "
            f"among all {len(recipe.classes)} classes; a run of --train-cache and --test-cache {cache.path} learns these words"
        )
    return [dataclasses.replace(item, class_name=ours.get(item.class_name, item.class_name)) for item in items]


def _spell_as(items: Sequence[Item], classes: Sequence[str]) -> list[Item]:
    """Items in the run's words, where their classes differ in spelling alone (earlier caches said Happy). Prints which."""
    meant = {find_expression(name) or plain_word(name): name for name in classes}
    others = sorted({item.class_name for item in items if item.class_name} - {*classes})
    ours = {name: word for name in others if (word := meant.get(find_expression(name) or plain_word(name)))}
    if ours:
        print("label map: " + ", ".join(f"{name} → {word}" for name, word in ours.items()))
    return [dataclasses.replace(i, class_name=ours[i.class_name]) if i.class_name in ours else i for i in items]


def _describe_left_out(
    gathered: Sequence[Item], labelled: Sequence[Item], tested: Sequence[Item], recipe: Recipe
) -> list[str]:
    """Why samples of a cache are not tested, and how many."""
    parts = []
    known = {item.place for item in labelled}
    others = [item for item in gathered if item.place not in known]
    if recipe.is_multilabel:
        if others:
            parts.append(f"{len(others)} samples of which none of its classes is known")
    else:
        counts = Counter(item.class_name for item in others)
        if unlabelled := counts.pop("", 0):
            parts.append(f"{unlabelled} without a label")
        if counts:
            words = ", ".join(f"{num} labelled {name}" for name, num in sorted(counts.items()))
            parts.append(f"{words} (no class of this run)")
    kept = {item.place for item in tested}
    if trained := [item for item in labelled if item.place not in kept]:
        subjects = sorted({item.subject for item in trained})
        parts.append(f"{len(trained)} of {len(subjects)} subjects who trained ({list_some(subjects)})")
    return parts


def _leave_out_trained(items: Sequence[Item], config: RunConfig, fold: Fold) -> list[Item]:
    """Those of people who did not train; items of the data set that trained."""
    trained = set(fold.train_subjects)
    if config.test_dataset not in ("", config.dataset):  # a run across data sets names people with theirs
        return [item for item in items if prefix_subject(config.dataset, item.subject) not in trained]
    return [item for item in items if item.subject not in trained]


def _select_own(items: Sequence[Item], config: RunConfig, fold: Fold) -> list[Item]:
    """What the run itself was tested on."""
    recipe = config.recipe
    protocol = dataclasses.replace(PROTOCOLS.get(recipe.protocol, PROTOCOLS[DEFAULT_PROTOCOL]), task=recipe.task)
    if not config.test_dataset:
        chosen = select_items(protocol, items, recipe.classes)
    else:
        chosen = select_test_items(protocol, items, recipe.classes)
        if config.test_dataset != config.dataset:
            chosen = prefix_subjects(chosen, config.test_dataset)
    return [item for item in chosen if item.subject in set(fold.test_subjects)]
