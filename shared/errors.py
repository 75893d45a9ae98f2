"""Define errors that a user can correct, and report them as one line with exit code 2."""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

OUT_OF_MEMORY = (
    "out of memory: use a smaller --batch-size (--gradient-accumulation keeps the gradient) or fewer --workers"
)
_WINDOWS = (
    "FACET-VLM runs on Linux and macOS: on Windows run `wsl --install` as administrator, then the same command in it"
)
_OS_ADVICE = {
    errno.ENOSPC: "the disk is full; free space and run the same command again to continue",
    errno.EDQUOT: "the disk quota is used up; free space and run the same command again to continue",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder or change its permissions",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EMFILE: "too many open files; allow more with `ulimit -n`",
    errno.ENFILE: "the machine has too many open files; end other programs",
    errno.EEXIST: "a file stands where a folder is needed; check the path",
    errno.ENOTDIR: "a file stands where a folder is needed; check the path",
    errno.ENOLCK: "its file system cannot lock files; use a folder on a local disk",
    errno.EISDIR: "a folder stands where a file is needed; check the path",
}
# Progress bars return to the start of their line and move up: allowed at the start and the end of a text.
_CURSOR_MOVES = re.compile(r"((?:[\r\n]|\x1b\[A)*+)(.*?)(\r*)", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # torch writes it for terminals
_LONG_NUMBER = re.compile(r"[0-9]{40,}")  # from a garbled file


def escape_controls(text: str) -> str:
    """Return a text with its control characters, line breaks too, written as escapes."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class FacetError(Exception):
    """An error that the user can correct. The message is one line: what is wrong, in which file, what to do.

    Control characters from files and their names are escaped: they must not break the line or steer a terminal.
    """

    def __init__(self, message: str = "") -> None:
        message = _LONG_NUMBER.sub(lambda match: f"{match[0][:12]}…", message)
        super().__init__(escape_controls(message))


class ScanError(FacetError):
    """One scan cannot be read or rendered. It never stops a build: the scan goes to failures.csv."""


class CacheError(FacetError):
    """A cache is missing, incomplete, damaged, or of another version."""


class StorageError(FacetError):
    """An object store cannot be reached or refuses. Unlike CacheError, it means nothing about the cache."""


# Tries of a waiting thread before it sleeps. By default it tries 60 times as often: beside two other programs on two cores,
# training was then 1.3 to 4 times slower. Alone, both were equally fast.
_SPIN_COUNT = "5000"


def run_command_line(main: Callable[[], int]) -> int:
    """Run a command line. An error that the user can correct is one line on stderr and exit code 2.

    Returns:
        main's own exit code; 2 after a user's error; 130 after Ctrl-C.
    """
    if sys.platform == "win32":
        print(f"error: {_WINDOWS}", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters that the terminal cannot show
    if "OMP_WAIT_POLICY" not in os.environ:  # read when GNU OpenMP is loaded, with torch
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    try:
        _check_names(sys.argv[1:])
        with redirect_stdout(_VisibleText(sys.stdout)), redirect_stderr(_VisibleText(sys.stderr)):  # type: ignore[type-var]
            return main()
    except FacetError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (for example `head`) has ended: no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        message = describe_os_error(error)
    except UnicodeEncodeError as error:  # of a file inside a folder that was named
        near = error.object[max(error.start - 60, 0) : error.end + 20]
        message = f"{near!a}: a name that is not UTF-8; rename that file or folder"
    except MemoryError:
        message = OUT_OF_MEMORY
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = OUT_OF_MEMORY
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch reports that the memory of the GPU or the machine is exhausted."""
    text = str(error)
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "can't allocate memory" in text


class _VisibleText:
    """An output stream that escapes control characters, so that names from received tables cannot steer a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        parts = _CURSOR_MOVES.fullmatch(text)
        assert parts is not None  # each part may be empty
        shown = _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], parts[2])
        return int(self._stream.write(parts[1] + shown + parts[3]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check_names(arguments: list[str]) -> None:
    """Refuse names that are not UTF-8, which JSON, HTML and safetensors cannot hold, before hours of work."""
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise FacetError(f"{shown}: not a name in UTF-8; rename it, or use a link with another name") from None


def describe_os_error(error: OSError) -> str:
    """Describe an error of the operating system in one line: which file, what failed, what to do."""
    where = f"{error.filename}: " if error.filename else ""
    return where + (_OS_ADVICE.get(error.errno or 0) or error.strerror or str(error))


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, shortened; the next too if it ends with a colon."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return shorten(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0], 240)


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the hint "did you mean X?" with the known name that is most like a wrong one; `otherwise` if none is."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else otherwise


def name_some(names: Sequence[str], most: int = 6) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def count(num: int, noun: str) -> str:
    """Return "1 fold" or "2 folds"."""
    return f"{num:,} {noun}{'s' * (num != 1)}"


def shorten(text: str, length: int) -> str:
    """Return the text, or as many of its first words as fit, and …; a very long word is cut."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > length // 2 else cut).rstrip(" ,;:.([") + "…"
