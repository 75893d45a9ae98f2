"""Every command, option, make target and path that the README names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python -m ((?:preprocess|train) [^\n`#]*)", README)))
# Files and folders of this repository, in backticks, with a slash or a suffix of ours.
PATHS = sorted(set(re.findall(r"`((?:shared|preprocess|train|tests|data_cache)/[\w./-]*)`", README)))


@cache
def help_of(package: str, command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", package, command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line: str) -> None:
    package, command, *words = line.split()
    text = help_of(package, command)
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not in {package} {command} --help"


def test_paths_exist() -> None:
    assert len(PATHS) > 5
    missing = [path for path in PATHS if not (ROOT / path).exists()]
    assert not missing
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README):
        assert (ROOT / picture).is_file()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)) <= targets
