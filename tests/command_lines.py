"""The command line of stage 1 in this process: a process of its own would take longer to start than most commands take."""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from preprocess.__main__ import main
from shared.errors import run_command_line


def preprocess(*arguments: object) -> int:
    """Runs `python -m preprocess ARGUMENTS`, with its error handling; returns its exit code."""
    return run_command_line(lambda: main([str(a) for a in arguments]))


def run_preprocess(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`preprocess`, with what it prints."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = preprocess(*arguments)
    return subprocess.CompletedProcess([str(a) for a in arguments], code, out.getvalue(), errors.getvalue())
