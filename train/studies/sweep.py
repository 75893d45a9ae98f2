"""`--sweep GRID.toml`: the combinations of some options, a run for each; made for array jobs of a cluster."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import itertools
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.command_line import print_next
from shared.errors import FacetError
from shared.option_file import read_toml
from shared.runs import CROSSVAL_JSON, FOLDS_JSON
from train.config import Options, RunOptions, option_name
from train.protocols.folds import read_folds
from train.reporting.summary import summarise_folds
from train.reporting.table import align, format_percent
from train.runs.results import read_fold_result

MAX_RUNS = 10_000
_MAX_NAME = 150  # characters of a folder's name
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
            close = difflib.get_close_matches(name, _KNOWN, 1)
            hint = f"; did you mean {close[0]}?" if close else "; expected an option with _ for -, such as batch_size"
            raise FacetError(f"{path}: {name:.60}: no option of a training{hint}")
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


def _list(cells: Sequence[Cell], words: Sequence[str], chosen: argparse.Namespace) -> None:
    """Print all runs, what is known of each, and how to start those that are left."""
    scores = [_read_score(chosen.out / cell.folder) for cell in cells]
    names = list(cells[0].values)
    rows = [
        [str(cell.number), *map(str, cell.values.values()), text] for cell, (text, _) in zip(cells, scores, strict=True)
    ]
    print("\n".join(align([["run", *names, "test score, %"], *rows])))
    left = [cell.number for cell, (_, is_finished) in zip(cells, scores, strict=True) if not is_finished]
    print(f"{len(cells)} runs in {chosen.out}, {len(cells) - len(left)} finished")
    if "seed" in names and "fold_seed" not in {*names, *vars(chosen)}:
        print("note: --seed also splits the subjects; add --fold-seed 0 to compare the runs")
    if len(left) < len(cells):
        print("note: a setting that is chosen by these scores is chosen on test subjects; the score is then too high")
    command = ["python", "-m", "train", *words, "--sweep-index"]
    if left:
        numbers = f"0-{len(cells) - 1}" if len(left) == len(cells) else ",".join(map(str, left))
        print(
            f"as an array job: sbatch --array={numbers} --wrap={shlex.quote(f'{shlex.join(command)} $SLURM_ARRAY_TASK_ID')}"
        )
        print_next(*command[2:], left[0], about="one of them")
    else:
        print(
            f"next: python -m train compare {shlex.quote(str(chosen.out))}/* --out {shlex.quote(f'{chosen.out}-compared')}"
        )


def _read_score(run: Path) -> tuple[str, bool]:
    """Return what the listing says of a run, and whether it is finished."""
    if (run / CROSSVAL_JSON).is_file():
        folders = {fold.name: run / fold.name for fold in read_folds(run / FOLDS_JSON).folds}
    else:
        folders = {run.name: run}
    results = [one for name, folder in folders.items() if (one := read_fold_result(folder, name)) is not None]
    if not results:
        return ("begun" if run.is_dir() else "–"), False
    summary = summarise_folds(results)
    primary = summary.task.primary
    text = f"{primary.short_title} {format_percent(summary.pooled[primary.name])}"
    is_finished = len(results) == len(folders)
    return text if is_finished else f"{text} of {len(results)} of {len(folders)} folds", is_finished


def _type_option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return option_name(name) if value else "--no-" + option_name(name)[2:]
    return f"{option_name(name)}={value}"
