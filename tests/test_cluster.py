"""Building on a cluster: a real scheduler and workers in processes of their own, killed in the middle, or not there at all."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest
from cryptography import x509
from scan_folders import cache_bytes, write_scan_folder
from test_attempts import task_of
from tqdm import tqdm

from preprocess.build import scheduler as scheduling
from preprocess.build.build import build_cache
from preprocess.build.local import make_keys
from preprocess.build.plan_file import check_current, plan_path, read_task, remove_plan, write_plan
from preprocess.build.run_shards import RowCount
from preprocess.datasets import DATASETS
from shared.errors import FacetError
from shared.schema import SHARD_ROWS, RenderSettings

FOLDER = DATASETS["folder"]
SMALL = RenderSettings(size_px=32)
ROOT = Path(__file__).resolve().parents[1]


def start(*command: str, cwd: Path) -> subprocess.Popen[bytes]:
    """A process that knows nothing of this program: another folder, no path to it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                    "--scheduler-file", str(tmp_path / "scheduler.json"), cwd=tmp_path)  # fmt: skip
    wait_for((tmp_path / "scheduler.json").is_file)
    yield process
    if process.poll() is None:
        stop(process)


@pytest.fixture
def scheduler_file(scheduler: subprocess.Popen[bytes], tmp_path: Path) -> Path:
    return tmp_path / "scheduler.json"


def start_worker(scheduler_file: Path, cwd: Path) -> subprocess.Popen[bytes]:
    return start("distributed.cli.dask_worker", "--scheduler-file", str(scheduler_file), "--nthreads", "1",
                 "--no-dashboard", "--host", "127.0.0.1", cwd=cwd)  # fmt: skip


def wait_for(condition: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_build(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "preprocess", "build", "folder", "--size", "32", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_killed_in_the_middle_costs_no_byte(scheduler_file: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_scan_folder(scans, 2 * SHARD_ROWS + 5)
    elsewhere = tmp_path / "elsewhere"  # workers of other machines have other current folders
    elsewhere.mkdir()
    workers = [start_worker(scheduler_file, elsewhere)]
    try:
        records, notes = tmp_path / "c" / "records", tmp_path / "c" / ".build"
        build = start_build("--root", scans, "--cache", tmp_path / "c", "--scheduler-file", scheduler_file)
        wait_for(lambda: any(records.glob("*.json")))
        workers.append(start_worker(scheduler_file, elsewhere))
        wait_for(lambda: any(notes.glob("attempts-*.json")))  # in the middle of its second shard
        stop(workers[0])
        stdout, stderr = build.communicate(timeout=240)
        assert build.returncode == 0, stderr
    finally:
        for worker in workers:
            if worker.poll() is None:
                stop(worker)
    assert "its worker was killed; built again" in stderr
    assert "none failed" in stdout
    build_cache(FOLDER, scans, tmp_path / "local", SMALL, num_workers=1)
    assert cache_bytes(tmp_path / "c") == cache_bytes(tmp_path / "local")
    assert not plan_path(tmp_path / "c").exists()


def test_a_lost_scheduler_is_one_clear_line(
    scheduler: subprocess.Popen[bytes], scheduler_file: Path, tmp_path: Path
) -> None:
    write_scan_folder(tmp_path / "scans", SHARD_ROWS)
    worker = start_worker(scheduler_file, tmp_path)
    build = start_build("--root", tmp_path / "scans", "--cache", tmp_path / "c", "--scheduler-file", scheduler_file)
    try:
        wait_for(lambda: any((tmp_path / "c" / ".build").glob("attempts-*.json")))
        stop(scheduler)
        _, stderr = build.communicate(timeout=120)
    finally:
        stop(worker)
    assert build.returncode == 2
    assert "error: the connection to the scheduler was lost" in stderr
    assert "Traceback" not in stderr


def test_no_scheduler_is_one_clear_line(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "scans", 2)
    (tmp_path / "other.json").write_text("{}")
    for option, value in (
        ("--scheduler-file", tmp_path / "none.json"),
        ("--scheduler-file", tmp_path / "other.json"),
        ("--scheduler", "nonsense:1:2"),
    ):
        build = start_build("--root", tmp_path / "scans", "--cache", tmp_path / "c", option, value)
        _, stderr = build.communicate(timeout=120)
        assert build.returncode == 2
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and option in errors[0] and "dask scheduler" in errors[0], stderr
        assert "Traceback" not in stderr
    build = start_build("--root", "x", "--cache", "y", "--workers", 2, "--scheduler", "tcp://a:1")
    assert "--workers" in build.communicate(timeout=120)[1]
    assert build.returncode == 2


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "scans", 3)
    task = task_of(tmp_path / "scans", tmp_path / "c", FOLDER)
    digest = write_plan(tmp_path / "c", [task, dataclasses.replace(task, shard=7)])
    assert read_task(tmp_path / "c", digest, 0) == task
    assert read_task(tmp_path / "c", digest, 7).shard == 7
    check_current(tmp_path / "c", digest)


def test_a_plan_is_not_believed_when_it_is_another_or_damaged(tmp_path: Path) -> None:
    write_scan_folder(tmp_path / "scans", 3)
    cache = tmp_path / "c"
    task = task_of(tmp_path / "scans", cache, FOLDER)
    digest = write_plan(cache, [task])
    whole = plan_path(cache).read_bytes()
    for place in range(0, len(whole), 7):  # nothing is unpickled that was changed on the way
        plan_path(cache).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FacetError, match=r"damaged|another build"):
            read_task(cache, digest, 0)
    for length in (0, 10, 100, len(whole) - 1):
        plan_path(cache).write_bytes(whole[:length])
        with pytest.raises(FacetError, match=r"damaged|another build"):
            read_task(cache, digest, 0)
    other = write_plan(cache, [dataclasses.replace(task, strict=True)])
    assert other != digest
    for check in (lambda: read_task(cache, digest, 0), lambda: check_current(cache, digest)):
        with pytest.raises(FacetError, match="taken"):
            check()
    remove_plan(cache)
    with pytest.raises(FacetError, match="does not see it"):
        read_task(cache, other, 0)
    with pytest.raises(FacetError, match="taken this cache over"):
        check_current(cache, other)


def test_a_worker_with_other_software_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from preprocess.build import plan_file

    write_scan_folder(tmp_path / "scans", 2)
    task = task_of(tmp_path / "scans", tmp_path / "c", FOLDER)
    software = dict(plan_file.software_of_workers())
    digest = write_plan(tmp_path / "c", [task])
    monkeypatch.setattr(plan_file, "software_of_workers", lambda: {**software, "numpy": "1.0"})
    with pytest.raises(FacetError, match=rf"numpy 1\.0 instead of {software['numpy']}"):
        read_task(tmp_path / "c", digest, 0)


def test_local_workers_keys_hold_whatever_the_clock_says() -> None:
    """dask's own are valid from the moment they are made: a clock put back by a second refuses them."""
    keys = make_keys().get_tls_config_for_role("worker")
    certificate = x509.load_pem_x509_certificate(keys["cert"].encode())
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc.year > 2100
    assert make_keys().get_tls_config_for_role("worker")["key"] != keys["key"]


def test_the_bar_moves_with_every_row_and_never_back() -> None:
    with tqdm(total=128, disable=False, file=io.StringIO()) as bar:
        count = RowCount(bar)
        for shard, num_rows, shown in (
            (0, 10, 10),
            (1, 5, 15),
            (0, 64, 69),
            (1, 2, 69),
            (1, 6, 70),
            (0, 64, 70),
            (1, 64, 128),
        ):
            count.note(shard, num_rows)  # shard 1's worker died at 5 and another began anew
            assert bar.n == shown


def test_rows_are_told_of_while_a_shard_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """By events of dask's, of one plan alone; no more than one every ROWS_EVERY_SECONDS."""
    monkeypatch.setattr(scheduling, "ROWS_EVERY_SECONDS", 0.2)

    def render(digest: str) -> None:
        tell = scheduling._tell_rows(scheduling._rows_topic(digest), 7)
        for num_rows in range(6):
            tell(num_rows)
            time.sleep(0.15)

    seen: list[tuple[int, int]] = []
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.subscribe_topic(scheduling._rows_topic("a" * 64), lambda event: seen.append(tuple(event[1])))
        for digest in ("b" * 64, "a" * 64):
            client.submit(render, digest, pure=False).result()
        wait_for(lambda: len(seen) == 2, seconds=10)
    assert seen == [(7, 2), (7, 4)]
