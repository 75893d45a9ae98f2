"""The items of a cache that a finished run is tested on."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from shared.cache import Cache
from shared.errors import CacheError, name_some
from shared.labels import find_expression, map_class_names, plain_word
from train.config import RunConfig
from train.data.items import describe_stabilising, gather_items, is_labelled
from train.options import Recipe
from train.protocols.folds import NOBODY, Fold
from train.protocols.leakage import describe_doubles
from train.protocols.named import DEFAULT_PROTOCOL, PROTOCOLS
from train.protocols.selection import keep_classes, name_tested, prefix_subjects, select_items, select_test_items
from train.protocols.trained_subjects import find_seen
from train.protocols.where import keep_where
from train.tasks.item import Item


def is_own_test(cache: Cache, config: RunConfig) -> bool:
    """Return whether a cache holds the scans that the run itself was tested on."""
    return cache.info.content_hash == (config.test_content_hash or config.content_hash)


def find_tested(cache: Cache, config: RunConfig, fold: Fold) -> list[Item]:
    """Return the items of the run's own test; of another cache, all items of its classes, of people who did not train.

    Prints which samples of another cache are left out.

    Raises:
        CacheError: there is none.
    """
    recipe = config.recipe
    if is_own_test(cache, config) and not fold.test_subjects:
        raise CacheError(
            f"{cache.path}: everyone in it was in training (--test-subjects {NOBODY}); give another --cache"
        )
    gathered = gather_items(cache, recipe)
    if not recipe.is_multilabel:
        gathered = map_classes(gathered, cache, config)
    labelled = [item for item in gathered if is_labelled(item, recipe.task, recipe.classes)]
    if is_own_test(cache, config):
        items = _select_own(keep_where(cache, labelled, recipe.where), config, fold)
    else:
        seen = find_seen(config, fold, cache, {item.subject for item in labelled})
        items = [item for item in labelled if item.subject not in seen.subjects]
        print(
            f"note: {cache.path} holds other scans than those of this run's own test; tested is every sample with one of its "
            "classes, of people who did not train"
        )
        if left_out := _describe_left_out(gathered, labelled, items, recipe):
            print(f"note: left out: {'; '.join(left_out)}")
        unlike = describe_stabilising(cache, config.render, whose="the run")
        for line in (*seen.notes, *describe_doubles(cache, items), *unlike):
            print(f"note: {line}")
    if not items:
        raise CacheError(f"{cache.path}: no sample of an unseen subject is labelled {', '.join(recipe.classes)}")
    return items


def map_classes(items: Sequence[Item], cache: Cache, config: RunConfig) -> list[Item]:
    """Return the items with the run's names of their classes; prints the map.

    Names that differ only in spelling are mapped (earlier caches have Happy), and classes of another data set to coarser ones
    of the run (anger to negative). Where the other data set is the coarser one, its samples keep their class and are not
    tested, because the run has learned no such class; a note is printed.
    """
    classes, info = config.recipe.classes, cache.info
    across = info.dataset != (config.test_dataset or config.dataset)
    renamed = map_class_names(info.class_names, classes) if across else {}
    spellings = {find_expression(name) or plain_word(name): name for name in classes}
    found = {item.class_name for item in items} - {"", *classes}
    for name in sorted(found):
        renamed[name] = spellings.get(find_expression(name) or plain_word(name)) or renamed.get(name, name)
    renamed = {name: word for name, word in renamed.items() if word != name}
    if renamed:
        print("label map: " + ", ".join(f"{name} → {word}" for name, word in renamed.items()))
    coarser = {name: word for name, word in map_class_names(classes, info.class_names).items() if word != name}
    if across and (found - renamed.keys()) & {*coarser.values()}:
        print(
            f"note: {info.dataset} has {', '.join(dict.fromkeys(coarser.values()))} for {', '.join(coarser)}: such samples are "
            f"not tested, and the decision stays among all {len(classes)} classes; a run of --train-cache and --test-cache "
            f"{cache.path} learns these classes"
        )
    return [dataclasses.replace(item, class_name=renamed.get(item.class_name, item.class_name)) for item in items]


def _describe_left_out(
    gathered: Sequence[Item], labelled: Sequence[Item], tested: Sequence[Item], recipe: Recipe
) -> list[str]:
    """Return why samples of a cache are not tested, and how many."""
    parts = []
    known, kept = ({item.index for item in items} for items in (labelled, tested))
    others = [item for item in gathered if item.index not in known]
    if recipe.is_multilabel and others:
        parts.append(f"{len(others)} samples of which none of its classes is known")
    if not recipe.is_multilabel:
        counts = Counter(item.class_name for item in others)
        if unlabelled := counts.pop("", 0):
            parts.append(f"{unlabelled} without a label")
        if counts:
            words = ", ".join(f"{num} labelled {name}" for name, num in sorted(counts.items()))
            parts.append(f"{words} (no class of this run)")
    if trained := [item for item in labelled if item.index not in kept]:
        subjects = sorted({item.subject for item in trained})
        parts.append(f"{len(trained)} of {len(subjects)} subjects who trained ({name_some(subjects)})")
    return parts


def _select_own(items: Sequence[Item], config: RunConfig, fold: Fold) -> list[Item]:
    recipe = config.recipe
    protocol = dataclasses.replace(PROTOCOLS.get(recipe.protocol, PROTOCOLS[DEFAULT_PROTOCOL]), task=recipe.task)
    if not config.test_dataset:
        chosen = select_items(protocol, items, recipe.classes)
    else:
        chosen = select_test_items(protocol, items, recipe.classes)
        if config.test_dataset != config.dataset:
            chosen = prefix_subjects(chosen, config.test_dataset)
        else:
            names = [name_tested(item.subject, fold.train_subjects) for item in chosen]
            chosen = [dataclasses.replace(item, subject=name) for item, name in zip(chosen, names, strict=True)]
    return keep_classes([item for item in chosen if item.subject in set(fold.test_subjects)], fold.test_classes)
