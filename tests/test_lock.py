"""The lock file of a received folder: whatever stands there, nothing else is opened, emptied or waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeCache

from preprocess.build.cache_folder import lock_cache
from shared.errors import CacheError, FacetError
from shared.store.lock import hold_lock


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def dangling(path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("nothing"))


def pipe(path: Path, _target: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _target: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [link, dangling, pipe, folder])
def test_a_lock_that_is_no_plain_file_is_refused(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    target = tmp_path / "thesis.txt"
    target.write_text("years of work")
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / ".lock", target)
    with pytest.raises(FacetError, match=r"\.lock: is not a plain file"), hold_lock(tmp_path / "run" / ".lock"):
        pass
    assert target.read_text() == "years of work" and not (tmp_path / "nothing").exists()


def test_a_lock_file_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("x")
    with hold_lock(path):
        pass
    assert path.read_text() == "x"


def test_folders_of_a_cache_that_lead_elsewhere_are_not_written_to(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, elsewhere = tiny_cache(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (cache / ".build").symlink_to(elsewhere)
    with pytest.raises(CacheError, match="is a link"), lock_cache(cache):
        pass
    assert not list(elsewhere.iterdir())
