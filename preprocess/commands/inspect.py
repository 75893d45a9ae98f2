"""`inspect`: show a cache in the browser, or write its summary, a contact sheet or an animation."""

from __future__ import annotations

import argparse

from preprocess.inspection.animation import write_animation
from preprocess.inspection.sheet import choose_shown, write_sheet
from preprocess.inspection.summary import describe_cache
from shared.cache import open_cache
from shared.errors import FacetError


def run(arguments: argparse.Namespace) -> int:
    if (arguments.subject or arguments.sample) and not arguments.sheet:
        raise FacetError("--subject and --sample select the content of --sheet FILE; give it too")
    if arguments.subject and arguments.sample:
        raise FacetError("--subject and --sample need a sheet each; give one of them")
    if (arguments.animation is None) != (arguments.sequence is None):
        raise FacetError("--animation FILE and --sequence NAME: give both or none")
    if (arguments.size or arguments.fps is not None or arguments.before_after) and not arguments.animation:
        raise FacetError("--size, --fps and --before-after are for --animation FILE; give it too")
    if any((arguments.show, arguments.views, arguments.plain)) and not (arguments.sheet or arguments.animation):
        raise FacetError("--show, --views and --plain are for --sheet and --animation; give one of them")
    files = arguments.summary or arguments.sheet or arguments.animation
    if not files:
        return _serve_pages(arguments)
    options = (arguments.run, arguments.tags, arguments.host, arguments.port, arguments.no_open, arguments.no_faces)
    if any(options):
        raise FacetError(
            "--run, --tags, --host, --port, --no-open and --no-faces are for the pages, not for text or files"
        )
    cache = open_cache(arguments.cache)
    if arguments.summary:
        print(describe_cache(cache))
    if arguments.sheet:
        shown = choose_shown(cache, arguments.show, arguments.views, plain=arguments.plain)
        write_sheet(cache, arguments.sheet, subject=arguments.subject, sample_id=arguments.sample, shown=shown)
        print(f"contact sheet: {arguments.sheet}")
    if arguments.animation:
        settings = cache.info.settings
        views = arguments.views or [settings.views[settings.front_view]]
        shown = choose_shown(cache, arguments.show, views, plain=arguments.plain)
        about = write_animation(
            cache,
            arguments.animation,
            sequence=arguments.sequence,
            shown=shown,
            size_px=arguments.size,
            frames_per_second=arguments.fps,
            before_after=arguments.before_after,
        )
        print(f"{about}: {arguments.animation}")
    return 0


def _serve_pages(arguments: argparse.Namespace) -> int:
    from preprocess.viewer.live import LiveSite
    from preprocess.viewer.server import DEFAULT_HOST, serve
    from preprocess.viewer.site import open_site

    live = LiveSite(
        lambda: open_site(arguments.cache, *arguments.run, faces=not arguments.no_faces, tags_file=arguments.tags)
    )
    serve(live, host=arguments.host or DEFAULT_HOST, port=arguments.port, open_browser=not arguments.no_open)
    return 0
