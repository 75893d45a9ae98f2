"""The web server of the viewer: this machine only unless asked, local files only, no path out of an address.

Other users of a machine reach its ports, and a cache is private: whoever asks must show the token of the printed address.
"""

from __future__ import annotations

import atexit
import errno
import hmac
import html as markup
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component
from flask import Response, abort, redirect, request
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler, select_address_family

from preprocess.viewer.address import FILTERS, Address, parse_query, parse_row
from preprocess.viewer.attention_section import class_heat_png, heat_png
from preprocess.viewer.confusion import confusion_page
from preprocess.viewer.coverage import coverage_page, outliers_and_likenesses
from preprocess.viewer.live import LOOK_SECONDS, LiveSite
from preprocess.viewer.map_page import map_page
from preprocess.viewer.prompts_page import prompts_page
from preprocess.viewer.sample import player_page, sample_page
from preprocess.viewer.site import Site
from preprocess.viewer.wall import wall_page
from shared.errors import FacetError, StorageError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8050
MAX_BODY_BYTES = 1 << 20  # of a request: Dash's own are some KB
MAX_THREADS = 32  # requests that are answered at a time; a browser opens six connections
REQUEST_SECONDS = 30.0  # for a client that sends or takes nothing
KEYS = "keys: arrows, Enter, Esc · Page Up, Page Down, Home, End · p plays, space pauses · a: overlay"
Page = Callable[[Site, Address], list[Component]]
PAGES: dict[str, tuple[str, Page]] = {
    "/": ("samples", wall_page),
    "/coverage": ("coverage", coverage_page),
    "/prompts": ("prompts", prompts_page),
    "/confusion": ("confusion", confusion_page),
    "/map": ("map", map_page),
}
OF_RUNS = ("/confusion", "/map")  # pages that there are with a run alone
ROW_PAGES = {"sample": sample_page, "play": player_page}


def build_app(live: LiveSite, *, token: str = "") -> Dash:
    """The viewer of one cache. A page that is loaded shows it as it is then; one that is open says when it has changed.

    Args:
        token: must stand in the first address that is asked for (`?token=…`), and then in a cookie; empty: nobody is refused.
    """
    app = _LocalDash(
        "preprocess.viewer",
        title=f"{live.site.cache.info.dataset} · cache",
        update_title="",
        serve_locally=True,
        assets_folder="assets",
        include_assets_files=True,
        suppress_callback_exceptions=True,  # filters come and go with the wall
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.layout = lambda: _frame(live.renew())

    @app.callback(Output("page", "children"), Input("url", "pathname"), Input("url", "search"))
    def show(pathname: str | None, search: str | None) -> list[Component]:
        try:
            return build_page(live.site, pathname or "/", search or "")
        except FacetError as error:  # a damaged shard must not take the rest of the cache with it
            return [html.P(str(error), className="warning")]

    @app.callback(
        Output("statistics", "children"),
        Output("look-again", "disabled"),
        Input("look-again", "n_intervals"),
        State("url", "search"),
    )
    def look(_: int, search: str | None) -> tuple[list[Component], bool]:
        site = live.site
        try:
            found = site.statistician.statistics()
            return outliers_and_likenesses(site, _address(site, search), found), found.finished
        except FacetError as error:  # an object store that does not answer now may do so when the page asks again
            return [html.P(str(error), className="warning")], not isinstance(error, StorageError)

    @app.callback(
        Output("changed", "children"),
        Input("look-for-change", "n_intervals"),
        State("opened", "data"),
        prevent_initial_call=True,
    )
    def look_for_change(_: int, opened: str) -> list[Component]:
        line = live.describe_change(opened)
        return [html.P(line, className="warning", role="status")] if line else []

    app.clientside_callback(
        ClientsideFunction("viewer", "filter"),
        Output("url", "search"),
        *[Input(f"filter-{name}", "value") for name in (*FILTERS, "show", "view")],
        State("url", "search"),
        prevent_initial_call=True,
    )
    _add_images(app, live)
    _guard(app, token)
    return app


class _LocalDash(Dash):
    """Dash that escapes the page's title, and without the address at which it would look for a newer version of itself."""

    def interpolate_index(self, *, config: str = "", title: str = "", **parts: Any) -> str:  # type: ignore[override]
        parts["title"] = markup.escape(title)  # a received cache's name of its data set is any text
        return str(super().interpolate_index(config=re.sub(r'("dash_version_url":)"[^"]*"', r'\1""', config), **parts))


def build_page(site: Site, pathname: str, search: str) -> list[Component]:
    """What stands at an address. Addresses are names of pages and row numbers, nothing else."""
    address = _address(site, search)
    if pathname in _pages(site):
        return PAGES[pathname][1](site, address)
    name, _, number = pathname.removeprefix("/").partition("/")
    row = parse_row(number, len(site.cache.samples))
    if name in ROW_PAGES and row is not None:
        return ROW_PAGES[name](site, row, address)
    if pathname in OF_RUNS:
        command = f"python -m preprocess inspect {site.cache.path} --run RUN"
        told: list[Component | str] = [
            "This page is about a trained run: start the viewer with --run RUN, such as ",
            html.Code(command),
        ]
        return [html.H1(PAGES[pathname][0].capitalize()), html.P(told, className="notice")]
    return [html.H1("No such page"), html.P(dcc.Link("All samples", href="/"))]


def _address(site: Site, search: str | None) -> Address:
    return parse_query(search or "", num_views=len(site.cache.info.settings.views))


def _pages(site: Site) -> dict[str, str]:
    """The pages there are of a cache: address → title."""
    return {path: title for path, (title, _) in PAGES.items() if path not in OF_RUNS or site.run}


def _frame(site: Site) -> Component:
    info = site.cache.info
    links = [dcc.Link(title, href=path) for path, title in _pages(site).items()]
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            html.Header([html.Strong(info.dataset), *links]),
            dcc.Store(id="opened", data=info.content_hash),
            dcc.Interval(id="look-for-change", interval=LOOK_SECONDS * 1000),
            html.Div(id="changed"),
            html.Main(id="page"),
            html.Footer(
                [
                    html.Span(info.licence),
                    html.Span(f"content {info.content_hash[:16]}", title="hash of what this cache holds"),
                    html.Span(KEYS),
                ]
            ),
        ]
    )


def _add_images(app: Dash, live: LiveSite) -> None:
    def send(draw: Callable[[], bytes | None]) -> Response:
        if not live.site.faces:
            abort(404)
        try:
            png = draw()
        except FacetError as error:
            return Response(f"{error}\n", status=500, mimetype="text/plain")
        if png is None:
            abort(404)
        return Response(png, mimetype="image/png")

    def image(row: int, kind: str, view: int) -> Response:
        return send(lambda: live.site.pictures.png(row, kind, view))

    def heat(row: int, place: int) -> Response:
        return send(lambda: heat_png(live.site, row, place))

    def class_heat(row: int, c: int, place: int) -> Response:
        return send(lambda: class_heat_png(live.site, row, c, place))

    def points(fold: int) -> Response:
        found = live.site.maps.points(fold)
        if found is None:
            abort(404)
        return Response(found, mimetype="application/json")

    app.server.add_url_rule("/image/<int:row>/<kind>/<int:view>.png", view_func=image)
    app.server.add_url_rule("/attention/<int:row>/<int:place>.png", view_func=heat)
    app.server.add_url_rule("/attention/<int:row>/<int:c>/<int:place>.png", view_func=class_heat)
    app.server.add_url_rule("/points/<int:fold>.json", view_func=points)


def _guard(app: Dash, token: str) -> None:
    scripts = " ".join(f"'{digest}'" if not digest.startswith("'") else digest for digest in app.csp_hashes())
    policy = (
        f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    def refuse_others() -> Any:
        if not token:
            return None
        cookie = f"facet-viewer-{request.host.rpartition(':')[2]}"  # browsers tell ports apart in no other way
        shown = request.args.get("token")
        if shown is not None and hmac.compare_digest(shown.encode(), token.encode()):
            rest = [(name, value) for name, value in request.args.items(multi=True) if name != "token"]
            answer = redirect("/" + request.path.lstrip("/") + ("?" + urlencode(rest) if rest else ""))
            answer.set_cookie(cookie, token, httponly=True, samesite="Lax")
            return answer
        if not hmac.compare_digest(request.cookies.get(cookie, "").encode(), token.encode()):
            return Response(
                "Open the address that the viewer printed: it ends in ?token=…\n", 403, mimetype="text/plain"
            )
        return None

    def add_headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if request.path.startswith(("/image/", "/attention/", "/points/", "/_dash-update")):
            response.headers["Cache-Control"] = "no-store"  # faces stay out of the browser's files
        return response

    app.server.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.server.before_request(refuse_others)
    app.server.after_request(add_headers)


class BoundedServer(ThreadedWSGIServer):
    """A thread a request, but never more than MAX_THREADS: further requests wait."""

    daemon_threads = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._free = threading.BoundedSemaphore(MAX_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(timeout=REQUEST_SECONDS):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class QuietHandler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_request(self, *_: Any) -> None:
        """A line for every picture would hide what matters."""


def serve(live: LiveSite, *, host: str = DEFAULT_HOST, port: int | None = None, open_browser: bool = True) -> None:
    """Serves the viewer until Ctrl-C; port None: 8050, or another where that is taken.

    Raises:
        FacetError: the host is not this machine's, or the given port is taken.
    """
    family = select_address_family(host, port or DEFAULT_PORT)
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise FacetError(f"--host {host}: expected a name or an address of this machine")
    everywhere = host in ("0.0.0.0", "::")
    token = secrets.token_urlsafe(24)
    app = build_app(live, token=token)
    cache = live.site.cache
    with _listen(host, port, family) as listener:
        server = BoundedServer(host, listener.getsockname()[1], app.server, QuietHandler, fd=listener.fileno())
        shown = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{server.port}/?token={token}"
        if host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"warning: whoever has the address below and reaches this machine sees these faces, and it is sent in clear; "
                f"{cache.info.licence}",
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
            live.close()


def _listen(host: str, port: int | None, family: socket.AddressFamily) -> socket.socket:
    for wanted in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            return socket.create_server((host, wanted), family=family)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise FacetError(f"--port {wanted}: is for administrators; choose one from 1024 on") from error
            if error.errno != errno.EADDRINUSE:
                reason = (error.strerror or str(error)).partition(" (while")[0]
                raise FacetError(f"--host {host}: not a name or an address of this machine ({reason})") from error
    raise FacetError(f"--port {port}: is taken; leave --port out for a free one")


def _open_browser(address: str) -> None:
    """Opens the address by way of a file that only this user reads: a command line with the token is seen by all users."""
    import os
    import tempfile
    import webbrowser

    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        # without a display it would start a browser in this terminal
        number, name = tempfile.mkstemp(prefix="facet-viewer-", suffix=".html")
        os.close(number)
        page = f'<!doctype html><meta http-equiv="refresh" content="0;url={markup.escape(address)}">'
        Path(name).write_text(page)  # keeps the mode 0600 of mkstemp
        atexit.register(Path(name).unlink, missing_ok=True)
        webbrowser.open(Path(name).as_uri())
