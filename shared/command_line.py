"""What the command lines of both stages share: commands, kinds of values, and the line that says what to do next."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from shared.store.paths import open_path


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, as every other error is told, and where the options are listed."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help lists what there is)\n")


def start_parser(prog: str, description: str, examples: str) -> tuple[argparse.ArgumentParser, Any]:
    """The parser of a stage, and what `add_command` adds its commands to."""
    parser = _Parser(
        prog=prog, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser, parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)


def add_command(
    commands: Any, name: str, summary: str, about: str = "", *, examples: str = ""
) -> argparse.ArgumentParser:
    """A command of a stage. Its help begins with `about` (default: the summary as a sentence) and ends with examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=about or f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.register("type", Path, _local_path)
    parser.register("type", open_path, _cache_path)
    return parser


def join_angles(words: Iterable[str]) -> list[str]:
    """`--views -20,0` as `--views=-20,0`: argparse takes what begins with a minus and is no plain number for an option."""
    joined: list[str] = []
    for word in words:
        if re.match(r"-[\d.]", word) and joined and re.fullmatch(r"--[\w-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _local_path(text: str) -> Path:
    """What `type=Path` stands for: an unset variable of a script must not mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found an empty one")
    return Path(text)


def _cache_path(text: str) -> Path:
    return open_path(text) if text else _local_path(text)


def whole_number(text: str) -> int:
    """An option's value. Raises argparse.ArgumentTypeError, which argparse tells as one line with the option's name."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None


def name_of(known: Sequence[str]) -> Callable[[str], str]:
    """The type of an argument that is one of some names: in any case; another name is refused with the closest one."""

    def parse(text: str) -> str:
        plain = {name.casefold(): name for name in known}
        if text.casefold() in plain:
            return plain[text.casefold()]
        # not bp4d for bp4d+, which is another data set
        others = [name for name in plain if not text.casefold().startswith(name)]
        close = difflib.get_close_matches(text.casefold(), others, 1, 0.7)
        hint = f"did you mean {plain[close[0]]}?" if close else f"expected one of {', '.join(known)}"
        raise argparse.ArgumentTypeError(f"no {text!r}; {hint}")

    return parse


def positive_number(text: str) -> int:
    """A whole number from 1. Raises argparse.ArgumentTypeError."""
    number = whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def print_next(stage: str, *words: object, about: str = "") -> None:
    """Prints a command to go on with, as it can be pasted into a shell: "next: python -m STAGE WORDS   # about"."""
    print(f"next: python -m {stage} {shlex.join(map(str, words))}" + (f"   # {about}" if about else ""))
