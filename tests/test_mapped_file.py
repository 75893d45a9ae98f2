"""Bytes of a file as they lie in memory: those that are there, and none that would have to be fetched."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from shared.store.mapped_file import MappedFile, map_file

NUM_PAGES = 40


@pytest.fixture
def noise(tmp_path: Path) -> tuple[int, bytes]:
    """A descriptor of a file that is on the disk and in memory, and its bytes."""
    data = np.random.default_rng(0).bytes(NUM_PAGES * mmap.PAGESIZE + 123)
    (tmp_path / "file").write_bytes(data)
    number = os.open(tmp_path / "file", os.O_RDWR)
    os.fsync(number)
    return number, data


def test_bytes_are_the_files(noise: tuple[int, bytes]) -> None:
    number, data = noise
    file = map_file(number)
    assert file is not None
    random = np.random.default_rng(1)
    for _ in range(200):
        first, last = sorted(random.integers(0, len(data), 2).tolist())
        found = file.find(first, last - first)
        assert found is not None
        assert found.tobytes() == data[first:last]
        assert not found.flags.writeable


def test_what_is_not_in_memory_is_not_touched(noise: tuple[int, bytes]) -> None:
    number, data = noise
    file = MappedFile(number, len(data))
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    if file.find(0, len(data)) is not None:
        pytest.skip("this file system keeps its files in memory")
    assert os.pread(number, 10, 5) == data[5:15]  # brings in the first page, and maybe some after it
    first = file.find(5, 10)
    assert first is not None
    assert first.tobytes() == data[5:15]


def test_a_file_that_was_cut_short_ends_no_process(noise: tuple[int, bytes]) -> None:
    """Touching a page behind the end of a file is a bus error."""
    number, data = noise
    file = MappedFile(number, len(data))
    os.ftruncate(number, mmap.PAGESIZE)
    assert file.find(mmap.PAGESIZE, 2 * mmap.PAGESIZE) is None
    assert file.find(0, mmap.PAGESIZE) is not None


def test_only_files_whose_pages_the_system_tells_of_are_mapped(noise: tuple[int, bytes], tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with (tmp_path / "empty").open("rb") as empty:
        assert map_file(empty.fileno()) is None
    number, _ = noise
    with pytest.MonkeyPatch.context() as patch:  # somebody else's file that is only to be read
        patch.setattr(os, "geteuid", lambda: os.fstat(number).st_uid + 1)
        patch.setattr(os, "access", lambda path, mode: False)
        assert map_file(number) is None
