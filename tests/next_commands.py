"""What a command says to do next, read as a shell reads it and then as the command line does."""

from __future__ import annotations

import shlex

from preprocess.arguments import build_parser as build_preprocess_parser
from train.arguments import build_parser as build_train_parser

PARSERS = {"preprocess": build_preprocess_parser, "train": build_train_parser}


def next_commands(text: str) -> list[str]:
    """The stage and command of each "next:" line in what was printed, e.g. "train fit"; what cannot be run ends the test."""
    found = []
    for line in text.splitlines():
        if not line.startswith("next: "):
            continue
        lexer = shlex.shlex(line.removeprefix("next: "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        python, option, stage, *words = lexer
        assert (python, option) == ("python", "-m")
        PARSERS[stage]().parse_args(words)  # exits where words are too many or lacking
        found.append(f"{stage} {words[0]}")
    return found
