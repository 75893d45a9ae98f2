"""Groups of samples: an item's values of the cache's columns, and `--where`, which chooses items by them."""

from __future__ import annotations

from collections.abc import Sequence

from shared.cache import Cache
from shared.errors import FacetError, name_some
from shared.groups import Groups, part_columns
from shared.labels import plain_word
from train.tasks.item import Item

NOT_KNOWN, SEVERAL = "(not given)", "(several)"  # the second of a sequence whose frames differ
OWN_COLUMNS = ("subject", "task", "intensity", "label")  # of samples.csv, which --where takes, too


def report_columns(cache: Cache) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the columns that scores are reported by, a value per row of the cache; notes on those that are not."""
    columns = part_columns(cache.groups, [row for row, sample in enumerate(cache.samples) if sample.valid])
    left_out = [name for name, values in cache.groups.items() if name not in columns and any(values)]
    return columns, [
        f"scores are not reported by {name}: it has many values, and they are no numbers" for name in left_out
    ]


def value_of(item: Item, values: Sequence[str]) -> str:
    """Return an item's value of a column."""
    found = {values[row] for row in item.rows}
    return SEVERAL if len(found) > 1 else next(iter(found)) or NOT_KNOWN


def keep_where(cache: Cache, items: Sequence[Item], where: Sequence[str]) -> list[Item]:
    """Return the items that meet every condition.

    Args:
        where: conditions such as "sex=F" or "site=A|B" (A or B), on a column of the cache's groups, or on subject, task,
            intensity or label; in any case.
    Raises:
        FacetError: no such condition, column or value.
    """
    kept = list(items)
    for condition in where:
        name, _, wanted = condition.partition("=")
        column, values = _find_column(cache, name.strip())
        choices = {plain_word(value): value for value in values if value}
        unknown = [value for value in wanted.split("|") if plain_word(value) not in choices]
        if unknown:
            there = name_some(sorted(choices.values())) or "none"
            raise FacetError(
                f"--where {condition}: no scan of {cache.path} has {column} {unknown[0]!r} (found: {there})"
            )
        plain = {plain_word(value) for value in wanted.split("|")}
        kept = [item for item in kept if all(plain_word(values[row]) in plain for row in item.rows)]
    if where and not kept:
        raise FacetError(f"--where {','.join(where)}: no usable sample of {cache.path} is left")
    return kept


def _find_column(cache: Cache, name: str) -> tuple[str, Sequence[str]]:
    columns: Groups = {**dict.fromkeys(OWN_COLUMNS, ()), **cache.groups}
    for column in columns:
        if column.casefold() == name.casefold():
            return column, cache.groups.get(column) or [getattr(sample, column) for sample in cache.samples]
    raise FacetError(f"--where {name}=…: {cache.path} has no column {name!r}; it has {', '.join(columns)}")
