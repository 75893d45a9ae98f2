"""Serve the viewer: to this machine only unless asked, on a free port, until Ctrl-C."""

from __future__ import annotations

import atexit
import errno
import html as markup
import os
import secrets
import socket
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler, select_address_family

from preprocess.viewer.app import build_app
from preprocess.viewer.live import LiveSite
from shared.errors import FacetError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8050
MAX_THREADS = 32  # requests that are answered at a time; a browser opens six connections
REQUEST_SECONDS = 30.0  # for a client that sends or takes nothing


class BoundedServer(ThreadedWSGIServer):
    """A thread per request, at most MAX_THREADS; further requests wait."""

    daemon_threads = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._free = threading.BoundedSemaphore(MAX_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(timeout=REQUEST_SECONDS):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class QuietHandler(WSGIRequestHandler):
    """Logs no requests: a line per picture would hide what matters."""

    timeout = REQUEST_SECONDS

    def log_request(self, *_: Any) -> None:
        pass


def serve(live: LiveSite, *, host: str = DEFAULT_HOST, port: int | None = None, open_browser: bool = True) -> None:
    """Serve the viewer until Ctrl-C.

    Args:
        port: None: 8050, or a free one if it is taken.
    Raises:
        FacetError: the host is not this machine's, or the port is taken.
    """
    family = select_address_family(host, port or DEFAULT_PORT)
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise FacetError(f"--host {host}: expected a name or an address of this machine")
    token, cache = secrets.token_urlsafe(24), live.site.cache
    app = build_app(live, token=token)
    with _listen(host, port, family) as listener:
        server = BoundedServer(host, listener.getsockname()[1], app.server, QuietHandler, fd=listener.fileno())
        everywhere = host in ("0.0.0.0", "::")
        name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{server.port}/?token={token}"
        if host not in ("127.0.0.1", "::1", "localhost"):
            print(
                "warning: whoever has the address below and can reach this machine sees these faces; the address is sent "
                f"unencrypted; {cache.info.licence}",
                file=sys.stderr,
            )
        taken = f"port {DEFAULT_PORT} is taken; " if port is None and server.port != DEFAULT_PORT else ""
        print(f"{cache.path}: {address}   ({taken}Ctrl-C ends)", flush=True)
        if open_browser:
            _open_browser(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
        finally:
            live.site.close()


def _listen(host: str, port: int | None, family: socket.AddressFamily) -> socket.socket:
    for wanted in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            return socket.create_server((host, wanted), family=family)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise FacetError(f"--port {wanted}: needs administrator rights; choose one from 1024 on") from error
            if error.errno != errno.EADDRINUSE:
                reason = (error.strerror or str(error)).partition(" (while")[0]
                raise FacetError(f"--host {host}: not a name or an address of this machine ({reason})") from error
    raise FacetError(f"--port {port}: is taken; leave --port out for a free one")


def _open_browser(address: str) -> None:
    """Open the address through a file that only this user can read: all users see the command lines of programs."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return  # a browser would start in this terminal
    with tempfile.NamedTemporaryFile("w", prefix="facet-viewer-", suffix=".html", delete=False) as file:  # mode 0600
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={markup.escape(address)}">')
    atexit.register(Path(file.name).unlink, missing_ok=True)
    webbrowser.open(Path(file.name).as_uri())
