"""Stage 1's command line as a user runs it: exit codes, last lines, one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_lines import run_preprocess
from next_commands import next_commands
from scan_folders import write_scan_folder

from preprocess.arguments import build_parser
from shared.schema import canonical_json


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    command = [sys.executable, "-m", "preprocess", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, exactly one error line with these words in it, no traceback."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scans, one of them garbled, and a cache of them."""
    folder = tmp_path_factory.mktemp("cli")
    write_scan_folder(folder / "scans", 5, num_subjects=2)
    (folder / "scans" / "scan002.obj").write_text("garbled")
    result = run("build", "folder", "--root", folder / "scans", "--cache", folder / "c", "--size", 32, "--workers", 1)
    assert result.returncode == 1, result.stderr  # finished, with a failure
    assert result.stdout.splitlines()[-1].endswith("4 scans of 2 subjects; 1 failed")
    assert next_commands(result.stdout) == ["preprocess inspect", "preprocess prompts"]
    assert f"{folder / 'c' / 'failures.csv'}\n" in result.stdout
    assert "scan002.obj" in result.stderr  # named while it runs, and in the table
    assert "scan002.obj" in (folder / "c" / "failures.csv").read_text()
    return folder


def test_build_says_so_when_nothing_is_left_to_do(folder: Path) -> None:
    result = run_preprocess("build", "folder", "--root", folder / "scans", "--cache", folder / "c", "--size", 32)
    assert result.returncode == 1
    assert "nothing to do" in result.stdout


def test_strict_is_exit_code_two(folder: Path, tmp_path: Path) -> None:
    command = ["build", "folder", "--root", folder / "scans", "--cache", tmp_path / "c", "--size", 32]
    result = run(*command, "--strict", "--workers", 2)
    assert_refused(result, "scan002.obj", "--strict")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "bu3dfe", "--root", "{tmp}/none", "--cache", "{tmp}/c"], ["none"]),
        (["build", "bu3dfe", "--root", "{tmp}/empty", "--cache", "{tmp}/c"], ["empty", "F0001"]),
        (["build", "bu4dfe", "--root", "{tmp}/empty", "--cache", "{tmp}/c"], ["empty", "F001"]),
        (["build", "folder", "--root", "{tmp}/empty", "--cache", "{tmp}/c"], ["manifest.csv"]),
        (["build", "folder", "--root", "{scans}", "--cache", "{tmp}/c", "--views", "0,left"], ["--views", "'left'"]),
        (["build", "folder", "--root", "{scans}", "--cache", "{tmp}/c", "--size", "3"], ["16 to 2048"]),
        (["build", "folder", "--root", "{scans}", "--cache", "{tmp}/c", "--modalities", "smell"], ["--modalities"]),
        (["build", "folder", "--root", "{scans}", "--cache", "{cache}", "--size", "48"], ["size_px 32, now 48"]),
        (["inspect", "--cache", "{tmp}/empty"], ["no cache here"]),
        (["inspect", "--cache", "{cache}", "--subject", "S00"], ["--sheet"]),
        (
            ["inspect", "--cache", "{cache}", "--sheet", "{tmp}/x.png", "--subject", "S00", "--sample", "a"],
            ["give one of them"],
        ),
        (["inspect", "--cache", "{cache}", "--animation", "{tmp}/x.gif"], ["--sequence"]),
        (["inspect", "--cache", "{cache}", "--fps", "5"], ["--animation FILE"]),
        (["inspect", "--cache", "{cache}", "--plain"], ["--sheet and --animation"]),
        (
            ["inspect", "--cache", "{cache}", "--sheet", "{tmp}/x.png", "--show", "relief,smell"],
            ["--show smell", "relief"],
        ),
        (["inspect", "--cache", "{cache}", "--sheet", "{tmp}/x.png", "--views", "0,45"], ["--views 45", "0,20,-20"]),
        (["inspect", "--cache", "{cache}", "--sheet", "{tmp}/x.png", "--sample", "nobody"], ["nobody"]),
        (["verify", "--cache", "{tmp}/empty"], ["no cache here"]),
        (["dynamic", "--cache", "{tmp}/empty", "--out", "{tmp}/d"], ["no cache here"]),
        (["dynamic", "--cache", "{cache}", "--out", "{tmp}/d"], ["holds no sequences"]),
        (["prompts", "--cache", "{cache}", "--model", "nope", "--pretrained", "none"], ["nope"]),
        (["prompts", "--cache", "{cache}", "--model", "facet-tiny"], ["--pretrained"]),
        (
            ["prompts", "--cache", "{cache}", "--prompts", "{tmp}/few.txt", "--model", "facet-tiny"],
            ["no prompt for class"],
        ),
        (["synth", "bu3dfe", "--out", "{scans}"], ["scans"]),
        (["synth", "bu3dfe", "--out", "{tmp}/few.txt"], ["few.txt: a file stands where a folder is needed"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_what_a_user_gets_wrong_is_one_line(
    arguments: list[str], words: list[str], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "few.txt").write_text("anger: an angry face\n")
    filled = [a.format(tmp=tmp_path, scans=folder / "scans", cache=folder / "c") for a in arguments]
    assert_refused(run_preprocess(*filled), *words)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["synth", "bu3dfe", "--out", "x", "--seed", "-1"], "--seed: expected 0 or more"),
        (
            ["build", "folder", "--root", "x", "--cache", "y", "--worker-memory", "0GB"],
            "--worker-memory: expected a size",
        ),
    ],
)
def test_numbers_that_cannot_be_meant(arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(arguments)
    assert stopped.value.code == 2
    assert option in capsys.readouterr().err


def test_names_that_are_not_utf8_are_one_line(tmp_path: Path) -> None:
    assert_refused(
        run("verify", "--cache", os.fsdecode(bytes(tmp_path) + b"/caf\xe9")), r"caf\xe9: not a name in UTF-8"
    )


def test_names_that_a_terminal_cannot_show_are_written_out(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "ç"
    link.symlink_to(folder / "c")
    command = [sys.executable, "-m", "preprocess", "verify", "--cache", str(link)]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\xe7: 5 rows" in result.stdout


def test_prompts_inspect_and_verify(folder: Path, tmp_path: Path) -> None:
    prompts = run_preprocess("prompts", "--cache", folder / "c", "--model", "facet-tiny", "--pretrained", "none")
    assert prompts.returncode == 0, prompts.stderr
    assert "RANDOM WEIGHTS" in prompts.stdout
    assert next_commands(prompts.stdout) == ["train fit"]
    inspect = run_preprocess("inspect", "--cache", folder / "c", "--summary", "--sheet", tmp_path / "sheet.png")
    assert inspect.returncode == 0, inspect.stderr
    assert "RANDOM WEIGHTS" in inspect.stdout
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    verify = run_preprocess("verify", "--cache", folder / "c")
    assert verify.returncode == 0, verify.stdout
    assert "every byte" in verify.stdout


def test_verify_and_a_cache_of_another_version(folder: Path, tmp_path: Path) -> None:
    info = json.loads((folder / "c" / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(canonical_json({**info, "format_version": 7}))
    assert_refused(run_preprocess("inspect", "--cache", tmp_path), "version 7, this program reads 1")
    (tmp_path / "cache.json").write_text("")
    build = ["build", "folder", "--root", folder / "scans", "--cache", tmp_path]
    assert_refused(run_preprocess(*build), "cache.json: damaged", "render everything again with --overwrite")
    broken = next((folder / "c" / "views.zarr").rglob("c/0/0/0/0/0"))
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    try:
        result = run_preprocess("verify", "--cache", folder / "c")
        assert result.returncode == 1
        assert "scan000" in result.stdout
        how = folder / "c" / ".build" / "build.toml"
        assert f"build --config {how} --cache {folder / 'c'} --repair" in result.stdout.splitlines()[-1]
        options = tomllib.loads(how.read_text())["build"]
        assert (options["name"], options["size"], options["root"]) == ("folder", 32, str(folder / "scans"))
    finally:
        broken.write_bytes(whole)


def test_help_lists_commands_groups_and_the_options_of_one_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("--help").stdout
    for command in ("synth", "build", "prompts", "inspect", "verify", "dynamic"):
        assert command in text
        with pytest.raises(SystemExit) as stopped:
            build_parser(command).parse_args([command, "--help"])
        assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.count("NAME") and all(title in text for title in ("workers:", "pages in the browser:"))
    assert "4dme: path of the frames" in text and "folder: lines word,class" in text


def test_an_option_of_another_data_set_is_refused(tmp_path: Path) -> None:
    result = run_preprocess("build", "bp4d", "--root", tmp_path, "--cache", tmp_path / "c", "--pattern", "x")
    assert_refused(result, "4dme")
