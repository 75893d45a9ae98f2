"""What the command lines of both stages share."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from shared.command_line import add_command, join_angles, name_of, positive_number, print_next, start_parser
from shared.errors import first_line, shorten
from shared.store.paths import open_path


@pytest.mark.parametrize("cache", ["data_cache/a", "a folder/it's (new)", "s3://bucket/prefix", "$HOME; x"])
def test_next_can_be_pasted_into_a_shell(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_next("train", "fit", "--cache", Path(cache) if ":" not in cache else cache, "--out", "runs/first")
    print_next("preprocess", "inspect", "--cache", cache, about="pages (in the browser)")
    fit, inspect = capsys.readouterr().out.splitlines()
    words = ["next:", "python", "-m", "train", "fit", "--cache", cache, "--out", "runs/first"]
    assert shlex.split(fit) == words
    assert shlex.split(inspect, comments=True) == ["next:", "python", "-m", "preprocess", "inspect", "--cache", cache]


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "many", ""])
def test_numbers_that_are_none_are_told(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser, commands = start_parser("x", "What x does.", "examples")
    add_command(commands, "build", "make it").add_argument("--workers", type=positive_number)
    assert parser.parse_args(["build", "--workers", "3"]) == argparse.Namespace(command="build", workers=3)
    with pytest.raises(SystemExit):
        parser.parse_args(["build", f"--workers={text}"])
    assert "argument --workers: expected" in capsys.readouterr().err


def test_a_list_that_begins_with_a_minus_is_a_value() -> None:
    parser, commands = start_parser("x", "What x does.", "examples")
    command = add_command(commands, "build", "make it")
    command.add_argument("--views")
    command.add_argument("--seed", type=int)
    command.add_argument("--strict", action="store_true")
    command.add_argument("-j", type=int)
    command.add_argument("name")
    for views in ["-20,0", "-.5:15", "-20", "0,-20"]:
        words = ["build", "--strict", "bu3dfe", "--views", views, "--seed", "-1", "-j", "2"]
        read = parser.parse_args(join_angles(words))
        assert (read.views, read.seed, read.strict, read.j, read.name) == (views, -1, True, 2, "bu3dfe")
    assert join_angles(["--views=0", "-20,0", "-s", "--all"]) == ["--views=0", "-20,0", "-s", "--all"]


@pytest.mark.parametrize("option", ["--cache", "--out", "--sheet"])
def test_an_empty_path_is_not_the_current_folder(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser, commands = start_parser("x", "What x does.", "examples")
    command = add_command(commands, "build", "make it")
    command.add_argument("--cache", type=open_path)
    group = command.add_mutually_exclusive_group()
    group.add_argument("--out", type=Path, default=Path("runs"))
    group.add_argument("--sheet", type=Path)
    assert parser.parse_args(["build"]).out == Path("runs")
    assert getattr(parser.parse_args(["build", option, "a/b"]), option[2:]) == Path("a/b")
    with pytest.raises(SystemExit):
        parser.parse_args(["build", option, ""])
    assert f"argument {option}: expected a path, found an empty one" in capsys.readouterr().err


@pytest.mark.parametrize("length", [20, 40, 160])
def test_a_text_is_cut_between_words(length: int) -> None:
    words = "the weights cannot be downloaded: laion/CLIP-ViT-B-16-laion2B-s34B-b88K. Last error: none " * 3
    cut = shorten(words, length)
    assert len(cut) <= length and cut.endswith("…")
    assert words.startswith(cut[:-1]) and words[len(cut) - 1] in " .:"
    assert shorten(words[:length], length) == words[:length]
    assert shorten("x" * 500, length) == "x" * (length - 1) + "…"  # no end of a word in sight


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[1mWeights only\x1b[0m load failed\nmore", "Weights only load failed"),
        ("Error(s) in loading:\n\tsize mismatch for a", "Error(s) in loading: size mismatch for a"),
        ("Error:", "Error:"),
        (" \n", "ValueError"),
    ],
)
def test_another_librarys_message_is_one_line(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bu4d", "did you mean bu4dfe?"),
        ("bospherus", "did you mean bosphorus?"),
        ("bp4d+", "expected one of"),
        ("x", "expected one of"),
    ],
)
def test_a_name_in_any_case_and_what_is_meant_by_another(text: str, words: str) -> None:
    parse = name_of(("bu3dfe", "bosphorus", "bu4dfe", "bp4d", "4dme", "folder"))
    assert name_of(("bp4d", "bp4dplus"))("BP4D+") == "bp4dplus"
    assert parse("BU4DFE") == "bu4dfe" and parse("Folder") == "folder"
    with pytest.raises(argparse.ArgumentTypeError) as error:
        parse(text)
    assert words in str(error.value)
