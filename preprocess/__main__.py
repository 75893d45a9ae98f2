"""Commands of stage 1: python -m preprocess synth | build | prompts | inspect | predict | verify | dynamic."""

from __future__ import annotations

import argparse
import importlib
import sys

from preprocess.arguments import build_parser
from shared.command_line import join_angles
from shared.errors import run_command_line


def main(arguments: list[str] | None = None) -> int:
    words = join_angles(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in words if not word.startswith("-")), "")
    return _run(build_parser(command).parse_args(words))


def _run(chosen: argparse.Namespace) -> int:
    """Run a command. Its module is imported only now: --help answers at once."""
    module = importlib.import_module(f"preprocess.commands.{chosen.command}")
    code: int = module.run(chosen)
    return code


def run() -> int:
    """Run the command line: `python -m preprocess`, or `facet-preprocess` where it is installed."""
    return run_command_line(main)


if __name__ == "__main__":
    sys.exit(run())
