"""`--sweep GRID.toml`: the combinations of some options, a run for each; made for array jobs of a cluster."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import re
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.command_line import print_next
from shared.errors import FacetError, suggest
from shared.option_file import read_toml
from shared.runs import CROSSVAL_JSON, FOLDS_JSON, read_log
from train.option_values import option_name
from train.options import Options, RunOptions
from train.protocols.folds import read_folds
from train.reporting.summary import summarise_folds
from train.reporting.table import align, format_percent
from train.runs.results import read_fold_result

MAX_RUNS = 10_000
_MAX_NAME = 150  # characters of a folder's name
_VALIDATION = "validation_loss"  # in log.jsonl
_KNOWN = {option.name for kind in (Options, RunOptions) for option in dataclasses.fields(kind)}
Value = str | int | float | bool


@dataclass(frozen=True)
class Cell:
    """One combination: name of each option → its value."""

    number: int
    values: dict[str, Value]

    @property
    def words(self) -> list[str]:
        """Return the options as they are typed."""
        return [_type_option(name, value) for name, value in self.values.items()]

    @property
    def folder(self) -> str:
        """Return the name of its run, such as `lr=0.001,fusion=mean`: it stays when the grid grows."""
        name = re.sub(r"[^\w.,=+-]+", "_", ",".join(f"{name}={value}" for name, value in self.values.items()))
        return name if len(name) <= _MAX_NAME else f"cell-{self.number}"


def read_grid(path: Path) -> list[Cell]:
    """Read a grid: lines such as `lr = [1e-3, 1e-2]`. The last option varies fastest.

    Raises:
        FacetError: not such a file, an unknown option, or too many combinations.
    """
    grid: dict[str, list[Value]] = {}
    for name, values in read_toml(path).items():
        if name not in _KNOWN:
            hint = suggest(name, _KNOWN, "expected an option with _ for -, such as batch_size")
            raise FacetError(f"{path}: {name:.60}: no option of a training; {hint}")
        if not isinstance(values, list) or not values or not all(isinstance(v, str | int | float) for v in values):
            raise FacetError(f"{path}: {name}: expected a list of values as they are typed, such as [1, 2] or ['a,b']")
        if len({str(value) for value in values}) < len(values):
            raise FacetError(f"{path}: {name}: holds a value twice; remove one")
        grid[name] = values
    num = 1
    for values in grid.values():
        num *= len(values)
    if not grid or num > MAX_RUNS:
        raise FacetError(f"{path}: {num if grid else 0:,} combinations; expected 1 to {MAX_RUNS:,}")
    cells = [
        Cell(number, dict(zip(grid, values, strict=True)))
        for number, values in enumerate(itertools.product(*grid.values()))
    ]
    if len({cell.folder for cell in cells}) < num:  # values that differ in punctuation alone
        raise FacetError(f"{path}: two runs would share a folder; change a value")
    return cells


def choose_run(
    chosen: argparse.Namespace, words: Sequence[str], parse: Callable[[Sequence[str]], argparse.Namespace]
) -> argparse.Namespace | None:
    """Return the parsed options of the run of `--sweep-index`; without an index list all runs, and return None.

    Args:
        words: the command line. parse: parses and checks one.
    Raises:
        FacetError: the grid or the index is wrong, or an option is both typed and in the grid.
    """
    cells, out = read_grid(chosen.sweep), chosen.out
    if typed := [option_name(name) for name in cells[0].values if name in vars(chosen)]:
        raise FacetError(f"{typed[0]}: is in {chosen.sweep}; leave it out of one of them")
    if chosen.sweep_index is None:
        for cell in cells:
            parse([*words, *cell.words])
        _list(cells, words, chosen)
        return None
    if chosen.sweep_index >= len(cells):
        raise FacetError(f"--sweep-index {chosen.sweep_index}: {chosen.sweep} has runs 0 to {len(cells) - 1}")
    cell = cells[chosen.sweep_index]
    print(f"run {cell.number} of 0 to {len(cells) - 1}: {shlex.join(cell.words)}")
    return parse([*words, *cell.words, "--out", str(out / cell.folder)])


@dataclass(frozen=True)
class _State:
    """What the listing says of a run: its test score as text, and the least validation loss, the mean of its folds."""

    score: str
    validation_loss: float | None = None
    is_finished: bool = False


def _list(cells: Sequence[Cell], words: Sequence[str], chosen: argparse.Namespace) -> None:
    """Print all runs, what is known of each, and how to start those that are left."""
    states = [_read_state(chosen.out / cell.folder) for cell in cells]
    names, losses = list(cells[0].values), [state.validation_loss for state in states]
    is_validated = any(loss is not None for loss in losses)
    rows = [["run", *names, *["validation loss"] * is_validated, "test score, %"]]
    for cell, state, loss in zip(cells, states, losses, strict=True):
        shown = ["–" if loss is None else f"{loss:.4f}"] * is_validated
        rows.append([str(cell.number), *map(str, cell.values.values()), *shown, state.score])
    print("\n".join(align(rows)))
    left = [cell.number for cell, state in zip(cells, states, strict=True) if not state.is_finished]
    print(f"{len(cells)} runs in {chosen.out}, {len(cells) - len(left)} finished")
    if "seed" in names and "fold_seed" not in {*names, *vars(chosen)}:
        print("note: --seed also splits the subjects; add --fold-seed 0 to compare the runs")
    if not is_validated and "validate" not in {*names, *vars(chosen)}:
        print(
            "note: settings chosen by test scores are chosen on test subjects; add --validate 0.1 to choose without them"
        )
    command = ["python", "-m", "train", *words, "--sweep-index"]
    if left:
        numbers = f"0-{len(cells) - 1}" if len(left) == len(cells) else ",".join(map(str, left))
        job = shlex.quote(f"{shlex.join(command)} $SLURM_ARRAY_TASK_ID")
        print(f"as an array job: sbatch --array={numbers} --wrap={job}")
        print_next(*command[2:], left[0], about="one of them")
    else:
        out = shlex.quote(f"{chosen.out}-compared")
        print(f"next: python -m train compare {shlex.quote(str(chosen.out))}/* --out {out}")


def _read_state(run: Path) -> _State:
    if (run / CROSSVAL_JSON).is_file():
        folders = {fold.name: run / fold.name for fold in read_folds(run / FOLDS_JSON).folds}
    else:
        folders = {run.name: run}
    results = [one for name, folder in folders.items() if (one := read_fold_result(folder, name)) is not None]
    if not results:
        return _State("begun" if run.is_dir() else "–")
    summary = summarise_folds(results)
    primary = summary.task.primary
    score = f"{primary.short_title} {format_percent(summary.pooled[primary.name])}"
    if len(results) < len(folders):
        return _State(f"{score} of {len(results)} of {len(folders)} folds")
    losses = [
        min((line.get(_VALIDATION, math.inf) for line in read_log(one)), default=math.inf) for one in folders.values()
    ]
    loss = statistics.mean(losses)
    return _State(score, loss if math.isfinite(loss) else None, is_finished=True)


def _type_option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return option_name(name) if value else "--no-" + option_name(name)[2:]
    return f"{option_name(name)}={value}"
