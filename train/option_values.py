"""Values of options: their names and text as they are typed, the check of one value, and the names of earlier versions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

# Former name of an option → its name, for files of earlier runs.
_RENAMED = {
    "accumulate": "gradient_accumulation",
    "checkpoint_activations": "gradient_checkpointing",
    "sampling": "frame_sampling",
    "window": "frame_window",
}


def option_name(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def rename_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as files of earlier runs name them, with their names of today."""
    values = {_RENAMED.get(name, name): value for name, value in values.items()}
    if type(shuffled := values.get("shuffle_labels", False)) is not bool:  # once a seed; None: not shuffled
        values["shuffle_labels"] = shuffled is not None
    if "tensorboard" in values:
        values["log"] = ["tensorboard"] * bool(values.pop("tensorboard"))
    return values


def find_problem(option: dataclasses.Field[Any], value: Any, kind: str) -> str:
    """Describe what is wrong with the value of an option; empty if nothing is.

    Args:
        kind: the expected type, as it is annotated: "int | None".
    """
    kind, _, optional = kind.partition(" | ")
    if value is None:
        return "" if optional else "expected a value, found none"
    if kind.startswith("tuple"):
        if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):
            return f"expected a list of names, found {value!r:.60}"
        if len(set(value)) != len(value) or "" in value or (option.default is None and not value):
            return f"{','.join(value)!r} is empty, or names one twice or an empty one"
        return next((problem for name in value if (problem := _find_odd_name(option, name))), "")
    if kind in ("int", "float"):
        if type(value) is not int and (kind == "int" or type(value) is not float):
            return f"expected a {'whole ' * (kind == 'int')}number, found {value!r:.60}"
        low, high = option.metadata["low"], option.metadata["high"]
        limits = f"at least {format_value(low)}" if high is None else f"{format_value(low)} to {format_value(high)}"
        is_in_range = low <= value and (high is None or value <= high)  # not for NaN
        return "" if is_in_range else f"expected {limits}, found {value}"
    if kind == "bool":
        return "" if type(value) is bool else f"expected true or false, found {value!r:.60}"
    if kind == "Path" and hasattr(value, "joinpath"):
        return ""
    return _find_odd_name(option, value)


def _find_odd_name(option: dataclasses.Field[Any], name: Any) -> str:
    choices, pattern = option.metadata.get("choices"), option.metadata.get("pattern")
    if not isinstance(name, str) or not name:
        return f"expected a text, found {name!r:.60}"
    if choices and name not in choices:
        return f"expected {' or '.join(choices)}, found {name!r:.60}"
    if pattern and not re.fullmatch(pattern, name):
        return f"expected {option.metadata['metavar']}, found {name!r:.60}"
    return ""


def format_value(value: object) -> str:
    """Return the value of an option as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
