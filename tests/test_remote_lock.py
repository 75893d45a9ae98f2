"""A lock in an object store: one holder at a time, taken over when it is not renewed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest
from object_store import served_bucket

import shared.store.remote_lock
from shared.errors import CacheError
from shared.store.paths import is_file, open_path, read_bytes
from shared.store.remote_lock import hold_remote_lock
from shared.store.storage import write_file

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with served_bucket() as address:
        yield address


def test_one_writer_at_a_time(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = open_path(f"{bucket}/lock/cache/.build/lock")
    with hold_remote_lock(path, what="c: another build is writing"):
        with (
            pytest.raises(CacheError, match=r"^c: another build is writing; it runs on .* ago"),
            hold_remote_lock(path, what="c: another build is writing"),
        ):
            pass
        assert is_file(path)
    assert not is_file(path)

    # Somebody else's lock, on a machine that cannot be asked: it counts until it has not been renewed for long enough.
    write_file(path, b'{"host": "elsewhere", "machine": "m", "pid": 1, "started": "1"}')
    with pytest.raises(CacheError, match="runs on elsewhere"), hold_remote_lock(path, what="c"):
        pass
    monkeypatch.setattr(shared.store.remote_lock, "EXPIRY_SECONDS", 1.0)
    time.sleep(2.1)
    with hold_remote_lock(path, what="c"):
        pass


def test_of_many_at_once_one_gets_the_lock(bucket: str) -> None:
    path = open_path(f"{bucket}/race/cache/.build/lock")
    held, refused = [], []
    start, all_tried = threading.Barrier(6), threading.Barrier(6)

    def try_it() -> None:
        start.wait()
        try:
            with hold_remote_lock(path, what="c"):
                held.append(1)
                all_tried.wait()
        except CacheError:
            refused.append(1)
            all_tried.wait()

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)


def test_a_lock_that_was_taken_over_stops_its_former_holder(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.store.remote_lock, "RENEWAL_SECONDS", 0.1)
    path = open_path(f"{bucket}/lost/cache/.build/lock")

    def lose_it() -> None:
        with hold_remote_lock(path, what="c"):
            time.sleep(0.5)  # renewed meanwhile, and still its own
            write_file(path, b'{"host": "elsewhere"}')
            for _ in range(100):  # what a build does; it is interrupted
                time.sleep(0.1)

    with pytest.raises(CacheError, match="took this cache over"):
        lose_it()
    assert json.loads(read_bytes(path)) == {"host": "elsewhere"}  # not removed: it is another's
