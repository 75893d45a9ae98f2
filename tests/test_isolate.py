"""Scans that bring their worker down: found, left out, remembered, tried again when there is reason to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crashing_reader import CRASHING, mark
from scan_folders import cache_bytes, write_scan_folder

from preprocess.build.build import BuildReport, build_cache
from preprocess.build.isolate import READING, find_crashing
from preprocess.build.ledger import ShardNote, note_path, read_note, write_note
from preprocess.build.shard import ShardTask
from preprocess.build.verify import verify_cache
from preprocess.datasets.scan import DatasetReader
from shared.cache import open_cache
from shared.schema import RenderSettings

SMALL = RenderSettings(size_px=32)


def build(root: Path, cache: Path, *, dataset: DatasetReader = CRASHING, **options: object) -> BuildReport:
    return build_cache(dataset, root, cache, SMALL, **{"num_workers": 2, **options})  # type: ignore[arg-type]


def invalid(cache: Path) -> dict[str, str]:
    return {s.sample_id: s.reason for s in open_cache(cache).samples if not s.valid}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_scan_folder(tmp_path / "scans", 4)
    return tmp_path / "scans"


def test_a_scan_that_aborts_its_worker_is_left_out_and_the_run_goes_on(scans: Path, tmp_path: Path) -> None:
    build(scans, tmp_path / "whole", num_workers=1)
    path = scans / "scan002.obj"
    mended = tmp_path / "mended"
    mark(path, f"# abort unless {mended}")
    report = build(scans, tmp_path / "c")
    assert invalid(tmp_path / "c") == {"scan002": READING}
    assert [f.reason for f in report.failures] == [READING]
    assert report.work.num_workers_died == 1  # its successor tries the scans in child processes
    assert verify_cache(tmp_path / "c") == []
    whole, cache = open_cache(tmp_path / "whole"), open_cache(tmp_path / "c")
    for row in (0, 1, 3):
        assert (whole.arrays.read("depth", [row]) == cache.arrays.read("depth", [row])).all()
    assert build(scans, tmp_path / "c", num_workers=1).num_rendered == 0  # unchanged: not tried for ever

    write_note(tmp_path / "again", 0, ShardNote(num_crashed=1))  # a builder crashed and left nothing else
    build(scans, tmp_path / "again", num_workers=1)
    assert cache_bytes(tmp_path / "again") == cache_bytes(tmp_path / "c")  # whoever meets it: the same bytes
    mended.touch()
    assert build(scans, tmp_path / "again", num_workers=1).num_rendered == 0
    build(scans, tmp_path / "again", num_workers=1, repair=True)  # … but asked to, it tries again
    assert invalid(tmp_path / "again") == {}

    mended.unlink()
    mark(scans / "scan003.obj", "# another comment")  # a neighbour changed: its shard is rendered, nobody dies over it
    assert build(scans, tmp_path / "c", num_workers=1).num_rendered == 4
    assert invalid(tmp_path / "c") == {"scan002": READING}
    path.write_text(path.read_text().partition("\n")[2])  # the scan itself changed: tried again
    build(scans, tmp_path / "c", num_workers=1)
    assert invalid(tmp_path / "c") == {}
    note = read_note(tmp_path / "c", 0)
    assert (note.num_crashed, note.quarantined) == (0, {})


def test_a_worker_killed_from_outside_costs_no_scan(scans: Path, tmp_path: Path) -> None:
    build(scans, tmp_path / "whole", num_workers=1)
    text = (scans / "scan003.obj").read_text()
    mark(scans / "scan003.obj", f"# killed once, {tmp_path / 'killed'}")
    report = build(scans, tmp_path / "c")
    assert (tmp_path / "killed").exists()
    assert report.work.num_workers_died == 1
    assert report.failures == []
    (scans / "scan003.obj").write_text(text)
    build(scans, tmp_path / "c", num_workers=1)
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "whole")


def test_a_build_that_died_itself_is_careful_when_run_again(scans: Path, tmp_path: Path) -> None:
    mark(scans / "scan001.obj", "# abort")
    code = (
        "from pathlib import Path; from test_isolate import build; "  # --workers 1 is this process itself
        f"build(Path({str(scans)!r}), Path({str(tmp_path / 'c')!r}), num_workers=1)"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert died.returncode == -signal.SIGABRT
    assert note_path(tmp_path / "c", 0).is_file()
    build(scans, tmp_path / "c", num_workers=1)
    assert invalid(tmp_path / "c") == {"scan001": READING}


def task_of(root: Path, cache: Path, dataset: DatasetReader = CRASHING) -> ShardTask:
    """The task of a one-shard build."""
    from preprocess.build.build import class_names_of
    from preprocess.build.plan import plan_rows
    from shared.schema import CacheInfo

    found = dataset.find(root).records
    plan = plan_rows(found, cache)
    info = CacheInfo(
        dataset=dataset.name,
        licence="",
        class_names=class_names_of(dataset, found),
        settings=SMALL,
        num_samples=len(found),
        num_shards=1,
        num_landmarks=dataset.num_landmarks,
    )
    return plan.tasks(dataset, root, cache, info)[0]


def test_probing_finds_every_deadly_scan_and_no_other(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "few", 6)
    mark(tmp_path / "few" / "scan004.obj", "# abort")
    (tmp_path / "few" / "scan001.obj").write_text("garbled")  # an error is no death
    mark(tmp_path / "few" / "scan002.obj", f"# killed once, {tmp_path / 'killed'}")
    task = task_of(tmp_path / "few", tmp_path / "c")
    assert find_crashing(task) == {"scan004": READING}
    assert (tmp_path / "killed").exists()


def test_a_scan_that_takes_too_much_memory_is_found(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "few", 3)
    mark(tmp_path / "few" / "scan001.obj", "# takes 2500 MB")
    task = task_of(tmp_path / "few", tmp_path / "c")
    assert find_crashing(task, memory_limit_bytes=1_500_000_000) == {"scan001": READING}
