"""The mailbox of the local stack shows hostile mails in Chromium without harm."""

from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tequipy_devstack.pages import Mailbox, PageServer

from .browser import IN_CHROMIUM

pytestmark = IN_CHROMIUM

HTML = """<meta http-equiv="refresh" content="0; url={url}/elsewhere">
<style>p {{ color: rgb(1, 2, 3) }}</style><p>Styled</p>
<script>document.body.textContent = "ran"</script>
<img src="{url}/pixel.png" onerror="document.body.textContent = 'ran'"><img src="x" onerror="top.location = '/ran'">
<form action="{url}/form"><button>Send</button></form>
<a href="{url}/linked">Follow</a><a href="javascript:document.body.textContent='ran'">Run</a>
"""


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[PageServer]:
    with PageServer(0, Mailbox(tmp_path)) as server:
        message = EmailMessage()
        message["Subject"], message["To"] = "<img src=x onerror=alert(1)>", "ada@example.com"
        message.set_content(f"<b>no</b> {server.url}/linked")
        message.add_alternative(HTML.format(url=server.url), subtype="html")
        (tmp_path / "20261127T110000.000000-ada@example.com.eml").write_bytes(message.as_bytes())
        yield server


def test_the_html_of_a_mail_does_nothing_but_follow_links(page: Page, mailbox: PageServer) -> None:
    """No script, form, redirect or outside image of a mail works; styles and links do, in a page of their own."""
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url.removeprefix(mailbox.url)))
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(mailbox.url)
    page.get_by_role("link", name="<img src=x").click()
    framed = page.frame_locator("iframe")
    expect(framed.get_by_text("Styled")).to_have_css("color", "rgb(1, 2, 3)")
    framed.get_by_role("button", name="Send").click()
    framed.get_by_role("link", name="Run").click()
    with page.context.expect_page() as opened:
        framed.get_by_role("link", name="Follow").click()
    opened.value.wait_for_load_state()
    assert opened.value.url == f"{mailbox.url}/linked"
    assert opened.value.evaluate("window.origin") == mailbox.url  # outside of the sandbox
    assert opened.value.evaluate("window.opener") is None
    expect(framed.get_by_text("Styled")).to_be_visible()
    pages = [path for path in asked if not path.startswith("/mails/")]
    assert sorted(set(pages) - {"about:blank"}) == ["/", "/linked"], asked
