"""Commands of stage 1: python -m preprocess synth | build | prompts | inspect | predict | verify | dynamic."""

from __future__ import annotations

import argparse
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
    match chosen.command:
        case "synth":
            from preprocess.commands import synth

            return synth.run(chosen)
        case "build":
            from preprocess.commands import build

            return build.run(chosen)
        case "prompts":
            from preprocess.commands import prompts

            return prompts.run(chosen)
        case "inspect":
            from preprocess.commands import inspect

            return inspect.run(chosen)
        case "predict":
            from preprocess.commands import predict

            return predict.run(chosen)
        case "verify":
            from preprocess.commands import verify

            return verify.run(chosen)
        case _:
            from preprocess.commands import dynamic

            return dynamic.run(chosen)


def run() -> int:
    """Run the command line: `python -m preprocess`, or `facet-preprocess` where it is installed."""
    return run_command_line(main)


if __name__ == "__main__":
    sys.exit(run())
