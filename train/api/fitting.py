"""Train and test from Python."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError
from shared.runs import PREDICTIONS_CSV, read_log, read_predictions, tabulate_predictions
from train.experiment import prepare_experiment
from train.option_parser import find_config, make_options, read_toml, read_values
from train.runs.results import read_fold_result
from train.training.fit import fit as fit_fold


@dataclass(frozen=True)
class FitResult:
    """A trained and tested fold; `load_model(result.run)` loads its model.

    run: its folder. scores: accuracy, uar, macro_f1, chance … of the test, fractions; {} if nobody was tested.
    confusion: i64 (C, C), rows are true classes; None for several labels at once.
    predictions, log: tables, for `pandas.DataFrame(result.log)`: a row per tested sample, and per logged step.
    """

    run: Path
    class_names: tuple[str, ...]
    scores: dict[str, float | None]
    confusion: np.ndarray | None
    predictions: dict[str, list[Any]]
    log: dict[str, list[float | None]]


def fit(
    config: Mapping[str, Any] | Path | str | None = None, *, out: Path | str, quiet: bool = False, **options: Any
) -> FitResult:
    """Train on the training subjects of a fold and test on the others, as `python -m train fit`, into the folder `out`.

    A finished run of the same settings is not trained again; an interrupted one is continued.

    Args:
        config: a config.toml, the name of a recipe, or a mapping of options.
        options: of `python -m train fit`, with `_`; they override those of `config`: cache="data_cache/demo", epochs=4.
        quiet: print nothing but warnings.
    Raises:
        FacetError, CacheError: anything that the user can correct.
        KeyboardInterrupt: after Ctrl-C; a checkpoint is written, and the same call continues from it.
    """
    values = read_toml(find_config(Path(config))) if isinstance(config, Path | str) else read_values(config or {})
    chosen, how = make_options(values | read_values(options))
    run = Path(out)
    experiment = prepare_experiment(chosen, how, run)
    if not quiet:
        print(*experiment.describe(), sep="\n", end="\n" if experiment.describe() else "")
    code = fit_fold(run, experiment, experiment.recipe.fold, device=how.device, quiet=quiet)
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        raise FacetError(f"{run}: stopped by a signal; the same call continues")
    return read_result(run)


def read_result(run: Path) -> FitResult:
    """Read a finished run."""
    result, log = read_fold_result(run), read_log(run)
    columns = {name: [line.get(name) for line in log] for name in dict.fromkeys(name for line in log for name in line)}
    if result is None:
        return FitResult(run, (), {}, None, {}, columns)
    predictions = tabulate_predictions(read_predictions(run / PREDICTIONS_CSV))
    scores, confusion = dict(result.metrics.overall), result.metrics.counts.get("confusion")
    return FitResult(run, result.class_names, scores, confusion, predictions, columns)
