"""Chromium from Debian's package, driven by playwright, for tests of what a person sees."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")

IN_CHROMIUM = [
    pytest.mark.prove,
    pytest.mark.quick,
    pytest.mark.skipif(CHROMIUM is None, reason="apt-get install chromium"),
]
"""The `pytestmark` of modules whose tests use the fixtures `browser` or `page`."""

_TIMEOUT_MS = 60_000
expect.set_options(timeout=_TIMEOUT_MS)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a headless Chromium until the block ends.

    Until then an event loop of playwright runs in this thread, so that no asynchronous test can run in it.
    """
    with sync_playwright() as playwright:
        # Without the sandbox, which needs rights that root in a container lacks; it loads pages of the tests only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    """Open a page with cookies and storage of its own; fail at the end if one of its scripts raised an error."""
    errors: list[str] = []
    with browser.new_context() as context:
        context.set_default_timeout(_TIMEOUT_MS)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        yield context.new_page()
    assert errors == [], "scripts of the page raised errors"
