"""The command that serves the pages: to this machine alone unless asked, on a free port, until it is stopped."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from browser import PATIENCE_SECONDS
from conftest import MakeCache

from preprocess.__main__ import main
from preprocess.viewer.app import MAX_BODY_BYTES, build_app
from preprocess.viewer.live import LiveSite
from preprocess.viewer.server import MAX_THREADS, BoundedServer, QuietHandler, _listen
from preprocess.viewer.site import open_site
from shared.errors import FacetError


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FacetError, match=f"--port {port}: is taken"):
            _listen("127.0.0.1", port, socket.AF_INET)
    with pytest.raises(FacetError, match="--host"):
        _listen("192.0.2.1", None, socket.AF_INET)  # an address for documentation: nobody's
    with pytest.raises(FacetError, match=r"--host no\.such\.host: not a name [^)]*known\)$"):
        _listen("no.such.host", 8050, socket.AF_INET)
    first = _listen("127.0.0.1", None, socket.AF_INET)
    with first, _listen("127.0.0.1", None, socket.AF_INET) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


@contextmanager
def watchdog(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends a process that says nothing, so that who reads its output does not wait for ever."""
    timer = threading.Timer(PATIENCE_SECONDS, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _taken(host: str, port: int) -> Iterator[None]:
    """Whoever else has the port will do as well."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(socket.create_server((host, port)))
        yield


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_the_command_serves_this_machine_unless_asked(tiny_cache: MakeCache, host: str) -> None:
    asked = [] if host == "127.0.0.1" else ["--host", host]  # Linux answers to all of 127.0.0.0/8
    command = [sys.executable, "-m", "preprocess", "inspect", "--cache", str(tiny_cache()), "--no-open", *asked]
    with (
        _taken(host, 8050),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout and process.stderr
            with watchdog(process):
                said = process.stdout.readline()
            found = re.search(r"(http://(127\.0\.0\.\d):\d+/)\?token=([\w-]{32})", said)
            assert found and found[2] == host, (
                f"no address within {PATIENCE_SECONDS} s: {said!r}, exit {process.poll()}"
            )
            assert "(port 8050 is taken; Ctrl-C ends)" in said
            picture = found[1] + "image/0/texture/0.png"
            for address in (found[1], picture, picture + "?token=" + "x" * 32, found[1] + "_dash-layout"):
                with pytest.raises(urllib.error.HTTPError) as refused:  # any other user of the machine
                    urllib.request.urlopen(address, timeout=20)
                assert refused.value.code == 403
            visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with visitor.open(found[0], timeout=20) as response:
                assert response.status == 200 and response.url == found[1]  # the token does not stay in the address
            with visitor.open(picture, timeout=20) as response:
                assert response.status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            said = process.stderr.read()
            assert "Traceback" not in said
            assert ("warning: whoever has the address" in said and "drawn by the tests; free" in said) == bool(asked)
        finally:
            process.kill()


def test_options_of_pages_and_files_do_not_mix() -> None:
    for option in (["--port", "8051"], ["--host", "0.0.0.0"], ["--run", "r"], ["--no-open"], ["--no-faces"]):
        with pytest.raises(FacetError, match="are for the pages"):
            main(["inspect", "--cache", "nowhere", "--summary", *option])


def test_a_large_body_is_refused_and_the_title_is_text(tiny_cache: MakeCache) -> None:
    name = "</title><meta http-equiv=refresh content='0;url=http://example.org'>"
    app = build_app(LiveSite(lambda: open_site(tiny_cache(dataset=name))))
    client = app.server.test_client()
    page = client.get("/").get_data(as_text=True)
    assert "<meta http-equiv=refresh" not in page and page.count("</title>") == 1
    assert (
        client.post(
            "/_dash-update-component", data=b"x" * (MAX_BODY_BYTES + 1), content_type="application/json"
        ).status_code
        == 413
    )


def test_threads_are_bounded_and_idle_clients_are_let_go(
    tiny_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build_app(LiveSite(lambda: open_site(tiny_cache())))
    monkeypatch.setattr(QuietHandler, "timeout", 0.5)
    server = BoundedServer("127.0.0.1", 0, app.server, QuietHandler)
    thread = threading.Thread(target=server.serve_forever)
    before = threading.active_count()
    thread.start()
    try:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3 * MAX_THREADS)]
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=20) as response:
            assert threading.active_count() <= before + MAX_THREADS + 2
            assert response.status == 200
        for connection in idle:
            connection.close()
    finally:
        server.shutdown()
        thread.join(PATIENCE_SECONDS)
        server.server_close()
