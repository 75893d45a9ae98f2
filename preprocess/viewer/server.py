"""The web server of the viewer: this machine only unless asked, local files only, no path out of an address."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component
from flask import Response, abort, request
from werkzeug.serving import WSGIRequestHandler, make_server, select_address_family

from preprocess.viewer.address import FILTERS, Address, parse_query, parse_row
from preprocess.viewer.confusion import confusion_page
from preprocess.viewer.coverage import coverage_page, outliers_and_likenesses
from preprocess.viewer.live import LOOK_SECONDS, LiveSite
from preprocess.viewer.look_section import class_heat_png, heat_png
from preprocess.viewer.map_page import map_page
from preprocess.viewer.prompts_page import prompts_page
from preprocess.viewer.sample import player_page, sample_page
from preprocess.viewer.site import Site
from preprocess.viewer.wall import wall_page
from shared.errors import FacetError, StorageError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8050
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


def build_app(live: LiveSite, *, hosts: tuple[str, ...] = ()) -> Dash:
    """The viewer of one cache. A page that is loaded shows it as it is then; one that is open says when it has changed.

    Args:
        hosts: names a browser may call this machine by, beside localhost and literal addresses. Requests under other names
            are refused: a page elsewhere that lets its own name point here must not read faces (DNS rebinding).
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
    _guard(app, hosts)
    return app


class _LocalDash(Dash):
    """Dash without the address at which it would look for a newer version of itself."""

    def interpolate_index(self, *, config: str = "", **parts: Any) -> str:  # type: ignore[override]
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


def _guard(app: Dash, hosts: tuple[str, ...]) -> None:
    scripts = " ".join(f"'{digest}'" if not digest.startswith("'") else digest for digest in app.csp_hashes())
    policy = (
        f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    def refuse_other_names() -> None:
        if not _is_own_name(request.host, hosts):
            abort(403)

    def add_headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if request.path.startswith(("/image/", "/attention/", "/points/", "/_dash-update")):
            response.headers["Cache-Control"] = "no-store"  # faces stay out of the browser's files
        return response

    app.server.before_request(refuse_other_names)
    app.server.after_request(add_headers)


def _is_own_name(host: str, hosts: tuple[str, ...]) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]").lower()
    if name == "localhost" or name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class QuietHandler(WSGIRequestHandler):
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
    names = (socket.gethostname().lower(), socket.getfqdn().lower()) if everywhere else (host.lower(),)
    app = build_app(live, hosts=names)
    cache = live.site.cache
    with _listen(host, port, family) as listener:
        server = make_server(
            host,
            listener.getsockname()[1],
            app.server,
            threaded=True,
            request_handler=QuietHandler,
            fd=listener.fileno(),
        )
        shown = names[0] if everywhere else f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{server.port}/"
        if host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"warning: whoever reaches {address} sees these faces, without a password; {cache.info.licence}",
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
    import os
    import webbrowser

    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)  # without a display it would start a browser in this terminal
