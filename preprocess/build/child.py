"""Run functions of this program in child processes, one call at a time; a child that crashes leaves this process alive.

A child is a fresh Python process (`python -m preprocess.build.child`). Calls and messages are pickled over a socket pair.
A child ends when its parent does, and is killed when it holds more memory than its limit.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Literal

import psutil

from shared.errors import FacetError

POLL_SECONDS = 0.1
# The libraries of a child stay on one thread: there is one child per core.
THREAD_LIMITS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS", "NUMBA_NUM_THREADS"), "1"
)
Function = Callable[..., Any]


@dataclass(frozen=True)
class Message:
    """progress: a value that the function reported; result: its return value; error: its exception; exit: an exit code."""

    kind: Literal["progress", "result", "error", "exit"]
    value: Any


class Child:
    """A process that runs one call at a time."""

    def __init__(self, memory_limit_bytes: int | None = None) -> None:
        self._limit, self._last_check = memory_limit_bytes, time.monotonic()
        self.connection, theirs = Pipe()
        search_path = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "preprocess.build.child", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **THREAD_LIMITS, "PYTHONPATH": search_path},
        )
        theirs.close()

    def call(self, function: Function, *arguments: Any) -> None:
        """Start function(*arguments, report), where `report` sends a progress message."""
        with suppress(OSError):  # it has crashed, as the next message says
            self.connection.send((function, arguments))

    def receive(self) -> Message:
        """Return the next message; kind "exit" where the process has ended."""
        try:
            message: Message = self.connection.recv()
            return message
        except (EOFError, OSError):
            return Message("exit", self._process.wait())

    def check_memory(self) -> None:
        """Kill the process if it holds more memory than its limit. Does nothing soon after the last check."""
        if time.monotonic() < self._last_check + POLL_SECONDS:
            return
        self._last_check = time.monotonic()
        with suppress(psutil.Error):  # it has just ended
            if self._limit is not None and psutil.Process(self._process.pid).memory_info().rss > self._limit:
                self._process.kill()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()


def receive_any(children: Collection[Child]) -> Iterator[tuple[Child, Message]]:
    """Wait for messages of busy children, and yield one of each child that has sent any."""
    by_connection = {child.connection: child for child in children}
    ready: list[Any] = []
    while not ready:
        ready = wait(list(by_connection), POLL_SECONDS)
        for child in children:
            child.check_memory()
    for connection in ready:
        yield by_connection[connection], by_connection[connection].receive()


def map_in_children(function: Function, items: Sequence[Any], num_processes: int) -> Iterator[Any]:
    """Yield the results of function(item, report) in the order of the items, each from a child process.

    Raises:
        FacetError: a child crashed. Whatever the function raises.
    """
    waiting = deque(enumerate(items))
    results: dict[int, Any] = {}
    running: dict[Child, int] = {}

    def start(child: Child) -> None:
        running[child], item = waiting.popleft()
        child.call(function, item)

    try:
        for _ in range(min(num_processes, len(items))):
            start(Child())
        for index in range(len(items)):
            while index not in results:
                for child, message in receive_any(running):
                    if message.kind == "error":
                        raise message.value
                    if message.kind == "exit":
                        raise FacetError(
                            f"a worker process ended with exit code {message.value}; run the same command again"
                        )
                    if message.kind == "result":
                        results[running.pop(child)] = message.value
                        if waiting:
                            start(child)
                        else:
                            child.stop()
            yield results.pop(index)
    finally:
        for child in running:
            child.stop()


def _main() -> None:
    connection = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    calls: queue.SimpleQueue[tuple[Function, tuple[Any, ...]]] = queue.SimpleQueue()
    threading.Thread(target=_receive_calls, args=(connection, calls), daemon=True).start()
    while True:
        function, arguments = calls.get()
        try:
            message = Message("result", function(*arguments, lambda value: connection.send(Message("progress", value))))
        except Exception as error:
            error.add_note(traceback.format_exc())
            message = Message("error", error)
        connection.send(message)


def _receive_calls(connection: Connection, calls: queue.SimpleQueue[tuple[Function, tuple[Any, ...]]]) -> None:
    try:
        while True:
            calls.put(connection.recv())
    finally:
        os._exit(1)  # the parent has ended


if __name__ == "__main__":
    from preprocess.build.child import _main as run  # so that messages are pickled as preprocess.build.child.Message

    run()
