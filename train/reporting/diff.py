"""`python -m train diff`: the settings, data, split, environment and scores in which runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared.command_line import print_next
from shared.errors import FacetError, name_some
from shared.runs import FOLDS_JSON, SPLIT_JSON
from train.protocols.folds import Fold, read_folds, read_split
from train.reporting.html.run import list_environment, list_settings
from train.reporting.scores import FORMATS
from train.reporting.summary import summarise_folds
from train.reporting.table import align
from train.runs.results import RecordedRun, read_recorded_runs
from train.tasks.task import Score

_MOST_WIDTH = 36  # of a name or a value in a table; longer values stand on lines of their own
_NONE = "–"


def diff(paths: Sequence[Path], *, show_all: bool) -> int:
    """Print what differs between runs of fit or crossval.

    Args:
        show_all: also print what is equal.
    Returns:
        0.
    Raises:
        FacetError: fewer than two runs, no run in a folder, or a file of it is damaged.
    """
    if len(paths) < 2:
        raise FacetError(f"{paths[0]}: one run; name another to compare it with")
    runs = read_recorded_runs(paths)
    names = [run.name for run in runs]
    if max(map(len, names)) > _MOST_WIDTH:
        names = [f"RUN{number}" for number in range(1, len(runs) + 1)]
        print("\n".join([*align(list(map(list, zip(names, map(str, paths), strict=True)))), ""]))
    num_equal = 0
    for title, tables in (
        ("options", [_options(run) for run in runs]),
        ("data and model", [_data(run) for run in runs]),
        ("split", _split(runs)),
        ("environment", [dict(list_environment(run)) for run in runs]),
        ("scores", [_scores(run) for run in runs]),
    ):
        keys = list(dict.fromkeys(key for table in tables for key in table))
        rows = [[key, *(table.get(key) or _NONE for table in tables)] for key in keys]
        shown = [row for row in rows if show_all or len(set(row[1:])) > 1]
        num_equal += len(rows) - len(shown)
        if shown:
            print("\n".join([*_format(title, names, shown), ""]))
    for run in runs:
        for line in run.missing:
            print(f"note: {run.name}: {line}")
    if num_equal:
        print(f"{num_equal} other lines are equal; --all shows them")
    if len({_describe_test(run) for run in runs}) == 1 and runs[0].results:
        print_next("train", "compare", *paths, about="is the difference of scores chance?")
    return 0


def _format(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    short = [row for row in rows if max(map(len, row[1:])) <= _MOST_WIDTH]
    lines = align([[title, *names], *short])
    for row in rows:
        if row not in short:
            lines += [row[0], *(f"  {line}" for line in align(list(map(list, zip(names, row[1:], strict=True)))))]
    return lines


def _options(run: RecordedRun) -> dict[str, str]:
    return {name: text for name, text in list_settings(run.config).items() if name.startswith("--")}


def _data(run: RecordedRun) -> dict[str, str]:
    found = {name: text for name, text in list_settings(run.config).items() if not name.startswith("--")}
    return found | {"cache": run.config.cache, "test cache": run.config.test_cache}


def _split(runs: Sequence[RecordedRun]) -> list[dict[str, str]]:
    """Return the folds of each run in words; subjects that not all runs have are named."""
    folds = [_read_split(run) for run in runs]
    if any(run.is_crossval for run in runs):
        found = []
        for own in folds:
            people = {subject for fold in own for subject in fold.test_subjects}
            same = "the same" if own == folds[0] else "others"
            found.append({"folds": f"{len(own)} of {len(people)} subjects", "subjects of each fold": same})
        return found
    tables: list[dict[str, str]] = [{} for _ in runs]
    for key, members in (
        ("training subjects", [{s for fold in own for s in fold.train_subjects} for own in folds]),
        ("validation subjects", [{s for fold in own for s in fold.validation_subjects} for own in folds]),
        ("test subjects", [{s for fold in own for s in fold.test_subjects} for own in folds]),
    ):
        common = set.intersection(*members)
        for table, own_members in zip(tables, members, strict=True):
            only = sorted(own_members - common)
            table[key] = f"{len(own_members)}" + (f", not in all: {name_some(only)}" if only else "")
    return tables


def _read_split(run: RecordedRun) -> tuple[Fold, ...]:
    if run.is_crossval:
        return read_folds(run.path / FOLDS_JSON).folds
    return (read_split(run.path),) if (run.path / SPLIT_JSON).is_file() else ()


def _describe_test(run: RecordedRun) -> tuple[object, ...]:
    """Return what two runs must share so that `compare` can pair them: task, classes, tested subjects and samples."""
    people = {subject for fold in _read_split(run) for subject in fold.test_subjects}
    kinds = {(result.info.task, result.class_names) for result in run.results}
    return frozenset(kinds), frozenset(people), sum(result.metrics.num_samples for result in run.results)


def _scores(run: RecordedRun) -> dict[str, str]:
    if not run.results:
        return {}
    summary = summarise_folds(run.results)
    task, pooled = summary.task, summary.pooled
    found = {_name_score(score): _format_score(score, pooled[score.name]) for score in task.scores}
    shown = task.class_score
    for class_name, value in zip(summary.class_names, pooled.per_class[shown.name], strict=True):
        found[_name_score(shown, f" of {class_name}")] = _format_score(shown, value)
    return found | {"samples tested": str(pooled.num_samples)}


def _name_score(score: Score, of_class: str = "") -> str:
    return score.title + of_class + (", %" if score.kind == "percent" else "")


def _format_score(score: Score, value: float | None) -> str:
    return _NONE if value is None else FORMATS[score.kind].text(value)
