"""Options in TOML files: read, written, and as the defaults of a command that takes `--config FILE.toml`."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.errors import FacetError, first_line, suggest

_MAX_BYTES = 1 << 24
_MAX_SHOWN = 60  # characters of a wrong key or value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of a user.

    Raises:
        FacetError: no such file, too large, or not TOML.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FacetError(f"{path}: {path.stat().st_size / 1e6:.0f} MB, expected a file of settings")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FacetError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise FacetError(f"{path}: not a TOML file ({first_line(error)})") from error


def format_table(name: str, values: Mapping[str, Any]) -> str:
    """Return values as a table of TOML; None is left out."""
    lines = [f"{key} = {format_value(value)}" for key, value in values.items() if value is not None]
    return "\n".join([f"[{name}]", *lines]) + "\n"


def format_value(value: Any) -> str:
    """Return a value as TOML; paths and other objects as their text."""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(format_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON text is a TOML text


def apply_file(parser: argparse.ArgumentParser, table: str, words: Sequence[str]) -> None:
    """Make the values of the file that `--config` names the defaults of a command. Options that are typed override them.

    Args:
        table: the only table of the file; its keys are the options, with _ for -, and the positional argument.
        words: the command line.
    Raises:
        FacetError: the file is unreadable, or a key or value is wrong; names the file and the key.
    """
    chosen = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    chosen.add_argument("--config", type=Path)
    path = chosen.parse_known_args(words)[0].config
    if path is None:
        return
    found = read_toml(path)
    if other := sorted(found.keys() - {table}):
        raise FacetError(f"{path}: [{other[0]:.{_MAX_SHOWN}}] is unknown; expected [{table}]")
    if not isinstance(values := found.get(table, {}), dict):
        raise FacetError(f"{path}: {table}: expected a table, [{table}]")
    actions = {_name(action): action for action in parser._actions if action.dest not in ("help", "config")}
    for key, value in values.items():
        if (action := actions.get(key)) is None:
            hint = suggest(key, actions, f"expected one of {', '.join(actions)}")
            raise FacetError(f"{path}: [{table}] {key:.{_MAX_SHOWN}}: unknown; {hint}")
        try:
            default = _convert(action, value)
        except (argparse.ArgumentTypeError, TypeError, ValueError, FacetError) as error:
            raise FacetError(f"{path}: [{table}] {key}: {first_line(error)}") from error
        is_typed = any(word.partition("=")[0] in action.option_strings for word in words)
        if isinstance(action, argparse._AppendAction) and is_typed:
            default = None  # argparse would add to it
        action.default, action.required = default, False


def _name(action: argparse.Action) -> str:
    return action.option_strings[0].lstrip("-").replace("-", "_") if action.option_strings else action.dest


def _convert(action: argparse.Action, value: Any) -> Any:
    """Return what the command line makes of a value. Raises what the option's type raises."""
    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, found {value!r:.{_MAX_SHOWN}}")
        return value
    if isinstance(action, argparse._AppendAction):
        return [_read(action, one) for one in (value if isinstance(value, list) else [value])]
    return _read(action, ",".join(map(str, value)) if isinstance(value, list) else value)


def _read(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a value as it is typed, found {value!r:.{_MAX_SHOWN}}")
    if value == "":
        raise ValueError("expected a text, found an empty one")
    read = action.type(str(value)) if callable(action.type) else str(value)
    if action.choices is not None and read not in action.choices:
        raise ValueError(f"expected {' or '.join(map(str, action.choices))}, found {value!r:.{_MAX_SHOWN}}")
    return read
