"""A real browser for the viewer's tests: Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from preprocess.viewer.app import build_app
from preprocess.viewer.live import LiveSite
from preprocess.viewer.server import QuietHandler
from preprocess.viewer.site import Site

PATIENCE_SECONDS = 20  # with a browser or a server that does not come up


def find_chromium() -> str:
    """Chromium's path; skips the test where there is none or nothing to drive it."""
    pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements-dev.txt")
    names = ("chromium", "chromium-browser", "google-chrome")
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    downloaded = sorted(map(str, own.glob("chromium-*/chrome-linux*/chrome")))  # by `playwright install chromium`
    found = next((path for name in names if (path := shutil.which(name))), downloaded[-1] if downloaded else "")
    if not found:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or python -m playwright install chromium")
    return found


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The viewer at an address of this machine."""
    server = make_server(
        "127.0.0.1", 0, build_app(LiveSite(lambda: site)).server, threaded=True, request_handler=QuietHandler
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), f"the viewer's server did not stop within {PATIENCE_SECONDS} s"


class Watched:
    """A page whose complaints and requests are written down."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def until(self, expression: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Waits until a JavaScript expression is true; the pages forbid eval, which Playwright's own waiting needs."""
        ends = time.monotonic() + seconds
        while not (value := self.page.evaluate(expression)):
            assert time.monotonic() < ends, (
                f"not true within {seconds:g} s: {expression}; at {self.page.url}, which says "
                f"{self.page.locator('body').inner_text()[:300]!r}; complaints: {self.complaints}"
            )
            time.sleep(0.01)
        return value


@contextmanager
def browsed(executable: str) -> Iterator[Watched]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"], timeout=1000 * PATIENCE_SECONDS
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(1000 * PATIENCE_SECONDS)
            yield Watched(page)
        finally:
            browser.close()
