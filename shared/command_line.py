"""Build the command lines of both stages: commands, types of values, and the line that names the next command."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from shared.option_file import apply_file
from shared.store.paths import open_path


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, as all other errors are reported.

    option_file: the table of the file of `--config`; empty: the command takes none.
    """

    option_file = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.option_file:
            apply_file(self, self.option_file, args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:  # argparse would let the parser of all commands say so, which knows no options
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1, 0.7)
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {close[0]}?" if close else "")
            )
        return found, unknown

    def error(self, message: str) -> NoReturn:
        help_option = "--help-all" if "--help-all" in self._option_string_actions else "--help"
        self.exit(2, f"error: {message} ({self.prog} {help_option} lists the options)\n")


def start_parser(prog: str, description: str, examples: str) -> tuple[argparse.ArgumentParser, Any]:
    """Return the parser of a stage, and the object to which `add_command` adds commands."""
    parser = _Parser(
        prog=prog, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser, parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)


def add_command(
    commands: Any, name: str, summary: str, about: str = "", *, examples: str = ""
) -> argparse.ArgumentParser:
    """Add a command with a summary, a description and examples. `about` is the description; default: the summary as a
    sentence."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=about or f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # An unset variable of a script must not mean the current folder.
    parser.register("type", Path, lambda text: Path(_check_path(text)))
    parser.register("type", open_path, lambda text: open_path(_check_path(text)))
    return parser


def add_option_file(command: argparse.ArgumentParser) -> None:
    """Let a command read its options from a file, as `shared.option_file.apply_file` describes."""
    assert isinstance(command, _Parser)
    command.option_file = command.prog.split()[-1]
    text = f"read options from a file, in the table [{command.option_file}]; options on the command line override it"
    command.add_argument("--config", type=Path, metavar="FILE.toml", help=text)


def _check_path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found an empty one")
    return text


def join_angles(words: Iterable[str]) -> list[str]:
    """Join `--views -20,0` to `--views=-20,0`: argparse takes a word with a minus that is no plain number for an option."""
    joined: list[str] = []
    for word in words:
        if re.match(r"-[\d.]", word) and joined and re.fullmatch(r"--[\w-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def whole_number(text: str, least: int | None = None) -> int:
    """Read the value of an option. Raises argparse.ArgumentTypeError, which argparse reports with the option's name."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None
    if least is not None and number < least:
        raise argparse.ArgumentTypeError(f"expected at least {least}, found {number}")
    return number


def natural_number(text: str) -> int:
    return whole_number(text, 0)


def positive_number(text: str) -> int:
    return whole_number(text, 1)


def name_of(known: Sequence[str]) -> Callable[[str], str]:
    """Return the type of an argument that is one of some names, in any case; another is refused with the closest name."""

    def parse(text: str) -> str:
        plain, word = {name.casefold(): name for name in known}, text.casefold().replace("+", "plus")
        if word in plain:
            return plain[word]
        close = difflib.get_close_matches(word, plain, 1, 0.7)
        hint = f"did you mean {plain[close[0]]}?" if close else f"expected one of {', '.join(known)}"
        raise argparse.ArgumentTypeError(f"no {text!r}; {hint}")

    return parse


def print_next(stage: str, *words: object, about: str = "") -> None:
    """Print the next command, ready for a shell: "next: python -m STAGE WORDS   # about"."""
    print(f"next: python -m {stage} {shlex.join(map(str, words))}" + (f"   # {about}" if about else ""))
