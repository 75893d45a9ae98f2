"""Build dataclasses from untrusted JSON: every field must have its annotated type."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

Made = TypeVar("Made")
_LARGEST = 1e300


def make(kind: type[Made], value: object) -> Made:
    """Build a dataclass from a JSON object; lists become tuples, objects become nested dataclasses.

    Args:
        kind: its fields are annotated with str, int, float, bool, None, Any, tuple[X, …], dict[str, X], unions of these, or
            dataclasses of such fields. Fields with a default may be missing.
    Raises:
        ValueError: an unknown or missing field, a value of another type, or a number that is not finite; names the field.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object for {kind.__name__}, found {_show(value)}")
    fields = _fields(kind)  # type: ignore[arg-type]
    if unknown := sorted(value.keys() - fields.keys()):
        raise ValueError(f"unknown field {unknown[0]!r:.60}")
    if missing := sorted(name for name, (_, needed) in fields.items() if needed and name not in value):
        raise ValueError(f"lacks {missing[0]!r}")
    return kind(**{name: _convert(fields[name][0], item, name) for name, item in value.items()})


@functools.cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Return each field's type, and whether it is required, by name."""
    hints = typing.get_type_hints(kind)
    return {
        f.name: (hints[f.name], f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.init
    }


def _convert(hint: Any, value: Any, name: str) -> Any:
    if hint is Any or (hint in (str, int, bool) and type(value) is hint):
        return value
    if hint is float and type(value) in (int, float) and -_LARGEST < value < _LARGEST:  # NaN is not
        return value
    if hint is types.NoneType and value is None:
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        for argument in arguments:
            try:
                return _convert(argument, value, name)
            except ValueError:
                continue
    elif origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(kinds) == len(value):
            return tuple(_convert(kind, item, name) for kind, item in zip(kinds, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, name) for key, item in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return make(hint, value)
    raise ValueError(f"{name}: expected {getattr(hint, '__name__', hint)}, found {_show(value)}")


def _show(value: object) -> str:
    return f"{value!r:.60}" if isinstance(value, str | int | float | bool | None) else type(value).__name__
