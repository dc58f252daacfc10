"""The fixtures that show pages in Chromium."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import IN_CHROMIUM, new_page

pytestmark = IN_CHROMIUM

HTML = b"""<!doctype html><title>Page</title><p id="told"></p>
<script>
document.cookie = "seen=1"
document.querySelector("#told").textContent = "f\xc3\xbcr " + document.cookie
</script>
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(HTML)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_page_runs_its_script_and_keeps_its_cookies_to_itself(page: Page, browser: Browser, url: str) -> None:
    """A page of a server on this machine runs its script; another page of the same browser has none of its cookies."""
    page.goto(url)
    expect(page.locator("#told")).to_have_text("für seen=1")
    with new_page(browser) as other:
        assert other.context.cookies() == []


def test_an_error_of_a_script_fails_the_test(browser: Browser, url: str) -> None:
    """An uncaught error of a page's script is reported at the end of the test."""

    def visit() -> None:
        with new_page(browser) as page:
            page.goto(url)
            with page.expect_event("pageerror"):
                page.evaluate("setTimeout(() => { throw new Error('broken') })")

    with pytest.raises(AssertionError, match="raised errors"):
        visit()
