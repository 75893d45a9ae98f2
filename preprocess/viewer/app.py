"""The web application of the viewer: the layout around every page, the addresses of pictures, and access by a token.

Other users of a machine can reach its ports, and a cache is private, so the first request must show the token of the printed
address.
"""

from __future__ import annotations

import hmac
import html as markup
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component
from flask import Response, abort, jsonify, redirect, request

from preprocess.viewer.address import FILTERS, Address
from preprocess.viewer.attention import heat_png
from preprocess.viewer.coverage import show_findings
from preprocess.viewer.landmarks import landmarks_svg
from preprocess.viewer.live import POLL_SECONDS, LiveSite
from preprocess.viewer.map import points_json
from preprocess.viewer.motion import unstabilised_png
from preprocess.viewer.pages import build_page, list_links, read_address
from preprocess.viewer.site import Site
from preprocess.viewer.wall import LIST_CSV, encode_list
from shared.errors import FacetError, StorageError

MAX_BODY_BYTES = 1 << 20  # of a request; Dash's own have some KB
KEYS = (
    "keys: arrows, Enter, Esc · Page Up, Page Down, Home, End · p plays, space pauses · "
    "a: attention · b: before --stabilise · l: landmarks · t: tag · r: next run"
)
FACES = ("/image/", "/unstabilised/", "/attention/", "/landmarks/")  # addresses of pictures of people
PRIVATE = (*FACES, "/points/", "/tag/", f"/{LIST_CSV}", "/_dash-update")  # not to be stored by the browser


def build_app(live: LiveSite, *, token: str = "") -> Dash:
    """Build the application. A page that is loaded shows the cache as it is then; an open page says when the cache changes.

    Args:
        token: required in the first address (`?token=…`), then in a cookie; empty: everybody is admitted.
    """
    app = _LocalDash(
        "preprocess.viewer",
        title=f"{live.site.cache.info.dataset} · cache",
        update_title="",
        serve_locally=True,
        assets_folder="assets",
        include_assets_files=True,
        suppress_callback_exceptions=True,  # filters exist on the wall only
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.layout = lambda: _frame(live.renew())

    @app.callback(
        Output("page", "children"), Output("links", "children"), Input("url", "pathname"), Input("url", "search")
    )
    def show_page(pathname: str | None, search: str | None) -> tuple[list[Component], list[Component]]:
        site = live.site
        links = list_links(site, pathname, search)
        try:
            return build_page(site, pathname, search), links
        except FacetError as error:  # a damaged shard must not hide the rest of the cache
            return [html.P(str(error), className="warning")], links

    @app.callback(
        Output("findings", "children"),
        Output("poll-findings", "disabled"),
        Input("poll-findings", "n_intervals"),
        State("url", "search"),
    )
    def poll_findings(_: int, search: str | None) -> tuple[list[Component], bool]:
        address = read_address(live.site, search)
        site = live.site.choose(address.run)
        try:
            found = site.checker.findings()
            return show_findings(site, address, found), found.finished
        except FacetError as error:  # an object store may answer later
            return [html.P(str(error), className="warning")], not isinstance(error, StorageError)

    @app.callback(
        Output("changed", "children"),
        Input("poll-change", "n_intervals"),
        State("opened", "data"),
        prevent_initial_call=True,
    )
    def poll_change(_: int, opened: str) -> list[Component]:
        line = live.describe_change(opened)
        return [html.P(line, className="warning", role="status")] if line else []

    app.clientside_callback(
        ClientsideFunction("viewer", "filter"),
        Output("url", "search"),
        *[Input(f"filter-{name}", "value") for name in (*FILTERS, "sort", "show", "view")],
        State("url", "search"),
        prevent_initial_call=True,
    )
    _guard(app, token)
    _add_routes(app, live)
    return app


class _LocalDash(Dash):
    """Dash with an escaped title, and without the address at which it would look for a newer version."""

    def interpolate_index(self, *, config: str = "", title: str = "", **parts: Any) -> str:  # type: ignore[override]
        config = re.sub(r'("dash_version_url":)"[^"]*"', r'\1""', config)
        return str(super().interpolate_index(config=config, title=markup.escape(title), **parts))


def _frame(site: Site) -> Component:
    info = site.cache.info
    content = html.Span(f"content {info.content_hash[:16]}", title="hash of the content of this cache")
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            html.Header([html.Strong(info.dataset), html.Nav(id="links")]),
            dcc.Store(id="opened", data=info.content_hash),
            dcc.Interval(id="poll-change", interval=POLL_SECONDS * 1000),
            html.Div(id="changed"),
            html.Main(id="page"),
            html.Footer([html.Span(info.licence), content, html.Span(KEYS)]),
        ]
    )


def _add_routes(app: Dash, live: LiveSite) -> None:
    """Add the addresses of pictures, of heat maps over them, of the map's points, of tags and of lists as CSV."""

    def send(data: bytes | None, kind: str = "image/png") -> Response:
        return abort(404) if data is None else Response(data, mimetype=kind)

    def site() -> Site:
        return live.site.choose(request.args.get("run", ""))

    def address() -> Address:
        return read_address(live.site, request.query_string.decode())

    def change_tag(row: int) -> Response:
        """Add or remove a tag. The body is JSON, which a page from elsewhere cannot send."""
        asked, samples = request.get_json(), live.site.cache.samples
        if not isinstance(asked, dict) or not isinstance(asked.get("tag"), str) or row >= len(samples):
            abort(400)
        tags = live.site.tags.change(samples[row].sample_id, asked["tag"], on=asked.get("on") is True)
        return jsonify(tags=tags)

    routes: dict[str, Callable[..., Response]] = {
        "/image/<int:row>/<kind>/<int:view>.png": lambda **at: send(live.site.pictures.png(**at)),
        "/unstabilised/<int:row>/<kind>/<int:view>.png": lambda **at: send(unstabilised_png(live.site, **at)),
        "/attention/<int:row>/<int:image>.png": lambda **at: send(heat_png(site(), **at)),
        "/attention/<int:row>/<int:class_index>/<int:image>.png": lambda **at: send(heat_png(site(), **at)),
        "/landmarks/<int:row>/<int:view>.svg": lambda **at: send(landmarks_svg(site(), **at), "image/svg+xml"),
        "/points/<int:fold>.json": lambda fold: send(points_json(site(), fold, address()), "application/json"),
        f"/{LIST_CSV}": lambda: send(encode_list(site(), address()), "text/csv"),
    }
    for route, view in routes.items():
        app.server.add_url_rule(route, endpoint=route, view_func=view)

    app.server.add_url_rule("/tag/<int:row>", view_func=change_tag, methods=["POST"])

    def hide_faces() -> None:
        if not live.site.faces and request.path.startswith(FACES):
            abort(404)

    app.server.before_request(hide_faces)
    app.server.register_error_handler(FacetError, lambda error: Response(f"{error}\n", 500, mimetype="text/plain"))


def _guard(app: Dash, token: str) -> None:
    """Admit holders of the token only, and forbid pages to load anything from elsewhere."""
    scripts = " ".join(f"'{digest.strip(chr(39))}'" for digest in app.csp_hashes())
    headers = {
        "Content-Security-Policy": f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    def is_token(text: str) -> bool:
        return hmac.compare_digest(text.encode(), token.encode())

    def refuse_others() -> Any:
        cookie = f"facet-viewer-{request.host.rpartition(':')[2]}"  # cookies are shared by all ports of a host
        if not token or (is_token(request.cookies.get(cookie, "")) and "token" not in request.args):
            return None
        if not is_token(request.args.get("token", "")):
            return Response(
                "Open the address that the viewer printed; it ends in ?token=…\n", 403, mimetype="text/plain"
            )
        query = urlencode([(name, value) for name, value in request.args.items(multi=True) if name != "token"])
        answer = redirect("/" + request.path.lstrip("/") + (f"?{query}" if query else ""))
        answer.set_cookie(cookie, token, httponly=True, samesite="Lax")
        return answer

    def add_headers(response: Response) -> Response:
        response.headers.update(headers)
        if request.path.startswith(PRIVATE):
            response.headers["Cache-Control"] = "no-store"
        return response

    app.server.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.server.before_request(refuse_others)
    app.server.after_request(add_headers)
