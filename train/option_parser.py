"""Options as text: the command line's arguments and config.toml, both generated from the sections of train/options.py."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared import option_file
from shared.command_line import natural_number
from shared.errors import FacetError, suggest
from shared.store.paths import open_path
from train.option_values import find_problem, option_name, rename_options
from train.options import SECTIONS, Options, RunOptions

# Options that --help shows, beside --out and --config; --help-all shows all.
FIRST = ("cache", "protocol", "modalities", "model", "tune", "epochs", "lr", "seed")
RECIPES = {path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.toml"))}
_READERS: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float, "Path": open_path}


_Hidden = tuple[argparse.Action, str]


class _HelpAll(argparse.Action):
    """--help-all: print the help with the options that --help leaves out.

    Args:
        hidden: action of each such option, and its help text.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, help: str, hidden: Sequence[_Hidden]) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)
        self._hidden = hidden

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for action, text in self._hidden:
            action.help = text
        parser.print_help()
        parser.exit()


def add_sections(parser: argparse.ArgumentParser, leave_out: Container[str] = ()) -> None:
    """Add the options of all sections. Options that are not given are absent from the namespace.

    --help shows those that matter first; --help-all shows all, a group for each section.
    """
    first = parser.add_argument_group("options that matter first")
    text = "folder of the results: a new one, or one to continue"
    first.add_argument("--out", type=Path, required=True, metavar="RUN", help=text)
    text = (
        "read options from a file, such as config.toml of a run folder, or from a recipe of train/recipes: "
        f"{', '.join(RECIPES)}; options on the command line override it"
    )
    first.add_argument("--config", type=Path, metavar="NAME|FILE.toml", help=text)
    hidden = []
    for section, fields_of in SECTIONS.items():
        group = parser.add_argument_group(f"{section}: {fields_of.__doc__}")
        for option in dataclasses.fields(fields_of):
            if option.name in FIRST:
                add_option(first, option)
            elif option.name not in leave_out:
                action = add_option(group, option)
                hidden.append((action, str(action.help)))
                action.help = argparse.SUPPRESS
    if "sweep" not in leave_out:
        group = parser.add_argument_group("sweep: a run for each combination of some options")
        text = "a grid: lines such as lr = [1e-3, 1e-2]; without --sweep-index, list its runs and how to start them"
        sweep = group.add_argument("--sweep", type=Path, metavar="GRID.toml", help=text)
        text = "train this run of the grid, in a folder of its own in RUN"
        index = group.add_argument("--sweep-index", type=natural_number, metavar="N", help=text)
        for action in (sweep, index):
            hidden.append((action, str(action.help)))
            action.help = argparse.SUPPRESS
    text = f"show all {len(hidden) + len(FIRST) + 2} options"
    parser.add_argument("--help-all", action=_HelpAll, hidden=hidden, help=text)


def add_option(parser: argparse._ActionsContainer, option: dataclasses.Field[Any]) -> argparse.Action:
    """Add one option; it is absent from the namespace if it is not given."""
    names = (option_name(option.name), *option.metadata.get("aliases", ()))
    text, kind = option.metadata["help"], str(option.type).partition(" | ")[0]
    if kind == "bool":
        action = argparse.BooleanOptionalAction
        return parser.add_argument(*names, dest=option.name, action=action, default=argparse.SUPPRESS, help=text)
    if option.default not in (None, ()) and "(default" not in text:
        text += f" (default {option.default})"
    is_list = kind.startswith("tuple")
    choices = None if is_list else option.metadata.get("choices")
    return parser.add_argument(
        *names,
        dest=option.name,
        type=split_names if is_list else _READERS[kind],
        choices=choices,
        metavar=None if choices else option.metadata.get("metavar", {"int": "N", "float": "X"}.get(kind, "LIST")),
        default=argparse.SUPPRESS,
        help=text,
    )


def split_names(text: str) -> tuple[str, ...]:
    """Read A,B,C."""
    return tuple(part.strip() for part in text.split(","))


def read_options(chosen: argparse.Namespace, *, all_folds: bool = False) -> tuple[Options, RunOptions]:
    """Read the options of a command line; what it does not name is taken from --config, then from the defaults.

    Args:
        all_folds: ignore the fold in the file, which is that of one run; a cross-validation takes only a typed --fold.
    Raises:
        FacetError: the file is unreadable or has an unknown key, or a value is out of its range.
    """
    values = read_toml(find_config(chosen.config)) if chosen.config else {}
    if all_folds:
        values.pop("fold", None)
    return make_options(values | vars(chosen))


def make_options(values: Mapping[str, Any]) -> tuple[Options, RunOptions]:
    """Return options by their names; other names are ignored.

    Raises:
        FacetError: a value is out of its range.
    """
    options, run = (
        {option.name: values[option.name] for option in dataclasses.fields(kind) if option.name in values}
        for kind in (Options, RunOptions)
    )
    return Options(**options), RunOptions(**run)


def find_config(path: Path) -> Path:
    """Return the file of `--config`: a file of this path, or the recipe of this name.

    Raises:
        FacetError: there is neither; lists the recipes.
    """
    if path.is_file():
        return path
    if str(path) in RECIPES:
        return RECIPES[str(path)]
    hint = suggest(str(path), RECIPES, "see train/recipes")
    raise FacetError(f"--config {path}: no such file, and no recipe; {hint} (recipes: {', '.join(RECIPES)})")


def read_toml(path: Path) -> dict[str, Any]:
    """Read the options in a file such as the config.toml of a run folder: name → value.

    Raises:
        FacetError: no such file, not TOML, or an unknown table, key or value; names the file and the key.
    """
    values: dict[str, Any] = {}
    for section, table in option_file.read_toml(path).items():
        if section not in SECTIONS or not isinstance(table, dict):
            raise FacetError(
                f"{path}: [{section:.60}] is unknown; expected {', '.join(f'[{name}]' for name in SECTIONS)}"
            )
        fields = {option.name: option for option in dataclasses.fields(SECTIONS[section])}
        for key, raw in rename_options(table).items():
            if key not in fields:
                hint = suggest(key, fields, f"expected one of {', '.join(fields)}")
                raise FacetError(f"{path}: [{section}] {key:.60}: unknown; {hint}")
            values[key] = _read_value(fields[key], raw, f"{path}: [{section}] {key}")
    return values


def read_values(given: Mapping[str, Any], known: Container[str] | None = None) -> dict[str, Any]:
    """Read options that a Python program gives: name → value.

    Args:
        given: by the names of the options with `_`. A list of names may be a list of anything, or text with commas.
        known: names that may be given; None: all.
    Raises:
        FacetError: an unknown name or a bad value.
    """
    fields = {option.name: option for kind in SECTIONS.values() for option in dataclasses.fields(kind)}
    fields = {name: option for name, option in fields.items() if known is None or name in known}
    values = {}
    for key, raw in rename_options(given).items():
        if key not in fields:
            hint = suggest(key, fields, f"expected some of {', '.join(fields)}")
            raise FacetError(f"{key}: no such option; {hint}")
        if str(fields[key].type).startswith("tuple"):
            raw = split_names(raw) if isinstance(raw, str) else None if raw is None else [str(name) for name in raw]
        elif isinstance(raw, Path):
            raw = str(raw)
        if raw is not None:
            values[key] = _read_value(fields[key], raw, key)
    return values


def _read_value(option: dataclasses.Field[Any], raw: Any, where: str) -> Any:
    """Return a value of TOML as that of an option; where: begins the message of an error."""
    value, kind = raw, str(option.type)
    if isinstance(raw, list):
        value = tuple(raw) if all(isinstance(name, str) for name in raw) else raw
    elif kind.startswith("Path") and isinstance(raw, str) and raw:
        value = open_path(raw)
    elif kind.startswith("float") and type(raw) is int:
        value = float(raw)
    if problem := find_problem(option, value, kind):
        raise FacetError(f"{where}: {problem}")
    return value


def format_toml(options: Options, run: RunOptions, recipe: Options) -> str:
    """Format options for --config; a default that was resolved stands as a comment, and follows from the other options.

    Args:
        recipe: the resolved options.
    """
    lines = [
        "# Options of this run. Its command (fit, crossval, ablate) with `--config THIS_FILE --out NEW_RUN` repeats it."
    ]
    for section, fields_of in SECTIONS.items():
        lines += ["", f"[{section}]"]
        for option in dataclasses.fields(fields_of):
            chosen = getattr(run if section == "run" else options, option.name)
            resolved = None if section == "run" else getattr(recipe, option.name)
            if chosen is not None:
                lines.append(f"{option.name} = {option_file.format_value(chosen)}")
            elif resolved is not None:
                lines.append(f"# {option.name} = {option_file.format_value(resolved)}  # resolved")
    return "\n".join(lines) + "\n"
