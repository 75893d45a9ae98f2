"""What reaches a terminal, and who may read what is written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeCache
from test_train_cli import QUICK, call, fails
from tqdm import tqdm

from shared.errors import run_command_line
from shared.store.paths import list_files
from shared.store.storage import check_writable, write_file


def test_control_characters_of_a_received_cache_are_written_out(
    tiny_cache: MakeCache, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "joy\x1b]0;owned\x07\x1b[2J\u202e"
    cache = tiny_cache(class_names=("anger", evil, "surprise"), dataset="d\x1b[31m")

    def summarise() -> int:
        from preprocess.inspection.summary import describe_cache
        from shared.cache import open_cache

        print(describe_cache(open_cache(cache)))
        print(f"note: {evil}", file=sys.stderr)
        return 0

    assert run_command_line(summarise) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "\x07" not in shown.out and "\u202e" not in shown.out
    assert "joy\\x1b]0;owned" in shown.out and "joy\\x1b" in shown.err


def test_progress_bars_move_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    def show() -> int:
        with tqdm(range(3), ascii=True, ncols=60, leave=False) as bar, tqdm(range(2), ncols=60, position=1):
            for _ in bar:
                bar.write("a line", file=sys.stderr)
        return 0

    assert run_command_line(show) == 0
    assert "\\" not in capsys.readouterr().err


def test_out_of_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def allocate() -> int:
        torch.empty(1 << 62, dtype=torch.uint8)
        return 0

    def fail() -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    for main in (allocate, fail):
        assert run_command_line(main) == 2
        assert "out of memory" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="size"):
        run_command_line(lambda: int(torch.zeros(2) @ torch.zeros(3)))


def test_what_is_made_from_a_private_cache_is_private(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, run = tiny_cache(), tmp_path / "runs" / "one"
    cache.chmod(0o700)
    assert call("fit", "--cache", cache, "--out", run, "--tune", "frozen", *QUICK) == 0
    assert run.stat().st_mode & 0o777 == 0o700
    assert (run.parent / "embeddings").stat().st_mode & 0o777 == 0o700
    assert call("predict", run, "--cache", cache, "--out", tmp_path / "p.csv") == 0
    assert call("report", run, "--out", tmp_path / "r.html") == 0
    assert call("export", run, "--out", tmp_path / "model") == 0
    for name in ("p.csv", "r.html", "model"):
        assert not (tmp_path / name).stat().st_mode & 0o077, name
    cache.chmod(0o750)
    assert call("fit", "--cache", cache, "--out", tmp_path / "two", *QUICK) == 0
    assert (tmp_path / "two").stat().st_mode & 0o777 == 0o750
    path = tmp_path / "plain"
    write_file(path, b"")
    assert path.stat().st_mode & 0o044  # nothing else changes


def test_predict_sees_that_it_cannot_write_before_it_works(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, run = tiny_cache(), tmp_path / "run"
    assert call("fit", "--cache", cache, "--out", run, *QUICK) == 0
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr("train.inference.score.score_items", None)  # not reached
    assert str(file) in fails(capsys, "predict", run, "--cache", cache, "--out", file / "p.csv")
    with pytest.raises(OSError):
        check_writable(Path("/proc/none/x"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_read_is_not_empty(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir(mode=0o700)
    np.save(folder / "x.npy", np.zeros(1))
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    if (child := os.fork()) == 0:
        os.setuid(65534)
        try:
            os._exit(0 if list_files(tmp_path) else 1)
        except PermissionError:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
