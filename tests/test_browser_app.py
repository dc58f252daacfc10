"""The example of a front end, the mailbox and the docs page of the local stack, as people see them in Chromium."""

import json
import re
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from .browser import IN_CHROMIUM
from .local_stack import Stack, eventually

pytestmark = [*IN_CHROMIUM, pytest.mark.timeout(300)]

PASSWORD = "correct horse battery staple"


def log_in(page: Page, email: str) -> None:
    form = page.locator("#login")
    form.get_by_label("E-mail").fill(email)
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Log in").click()


def open_mail(page: Page, stack: Stack, email: str) -> None:
    """Find the newest mail to an address in the mailbox, and open it."""
    subject = page.locator("tbody a[href^='/mails/']").first
    page.goto(f"{stack.mailbox}/")
    page.get_by_label("Address").fill(email)
    page.get_by_role("button", name="Search").click()
    for _ in range(200):  # until the worker has sent it
        if subject.count():
            break
        page.wait_for_timeout(100)
        page.reload()
    subject.click()


def test_a_person_registers_and_logs_in_from_another_origin(page: Page, stack: Stack) -> None:
    """Register, open the mailed link, log in, refresh, log out: from a page on another port, with the Strict cookie."""
    email = f"ada-{uuid4().hex}@example.com"
    status = page.get_by_role("status")
    page.goto(stack.front_end)
    form = page.locator("#register")
    form.get_by_label("E-mail").fill(email)
    form.get_by_label("Name").fill("Ada <b>Lovelace</b>")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Register").click()
    expect(status).to_have_text("We have sent you a mail: open its link.")

    mailbox = page.context.new_page()
    open_mail(mailbox, stack, email)
    with page.context.expect_page() as opened:
        mailbox.frame_locator("iframe").get_by_role("link").first.click()
    linked = opened.value
    expect(linked.get_by_role("heading", name="Verify your address")).to_be_visible()
    assert linked.url == f"{stack.front_end}/verify-email"  # the token is out of the address
    linked.get_by_role("button", name="Verify your address").click()
    expect(linked.get_by_role("status")).to_have_text("Your address is verified: log in.")

    log_in(page, email)
    expect(page.locator("#me-email")).to_have_text(email)
    expect(page.get_by_role("heading", name="Your account")).to_be_focused()  # the button that had it is hidden
    expect(page.locator("#me-name")).to_have_text("Ada <b>Lovelace</b>")
    (cookie,) = [each for each in page.context.cookies() if each["name"] == "refresh"]
    assert (cookie["sameSite"], cookie["httpOnly"]) == ("Strict", True)
    page.get_by_role("button", name="Refresh").click()
    expect(status).to_have_text("The access token is new.")
    assert [each["value"] for each in page.context.cookies() if each["name"] == "refresh"] != [cookie["value"]]

    linked.goto(stack.front_end)  # a second tab has the session too, and learns that the first one ends it
    expect(linked.locator("#me-email")).to_have_text(email)
    page.get_by_role("button", name="Log out").click()
    expect(status).to_have_text("You are logged out.")
    expect(linked.get_by_role("status")).to_have_text("You have logged out in another tab.")
    assert "refresh" not in {each["name"] for each in page.context.cookies()}
    page.reload()
    expect(page.locator("#login")).to_be_visible()


def test_a_page_shows_what_the_api_refuses(page: Page, stack: Stack) -> None:
    """A wrong password is shown in the status, which has the focus; a mistaken link can be left."""
    page.goto(f"{stack.front_end}/reset-password#token=rp1.none")
    page.locator("#link").get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Choose a new password").click()
    status = page.get_by_role("status")
    expect(status).to_have_class("error")
    expect(status).to_be_focused()
    page.get_by_role("link", name="Tequipy example").click()
    log_in(page, "nobody@example.com")
    expect(status).to_have_class("error")
    expect(page.locator("#login").get_by_role("button")).to_be_enabled()


def test_the_example_works_under_both_names_of_the_machine(page: Page, stack: Stack) -> None:
    """Under localhost the page calls localhost, because 127.0.0.1 would be another site, which shares no cookie."""
    page.goto(stack.front_end.replace("127.0.0.1", "localhost"))
    log_in(page, "nobody@example.com")
    expect(page.get_by_role("status")).to_contain_text("password")


LOG_IN = """async (url) => {
    const body = JSON.stringify({ email: "nobody@example.com", password: "correct horse battery staple" });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(url, { method: "POST", credentials: "include", headers, body });
    return [answer.status, (await answer.json()).detail];
}"""


def test_a_page_of_another_site_is_told_that_no_setting_allows_it(browser: Browser, stack: Stack) -> None:
    """The origin of the page is listed, so it can read the refusal, but its browser names another site."""
    with browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        details = []
        for host, expected in (("127.0.0.1", 401), ("localhost", 403)):
            page.goto(stack.front_end.replace("127.0.0.1", host))
            status, detail = page.evaluate(LOG_IN, f"{stack.url}/api/v1/auth/login")
            assert status == expected, detail
            details.append(detail)
    assert "Sec-Fetch-Site" in details[1]
    assert "which no setting allows" in details[1]


def test_another_origin_is_told_what_allows_it(page: Page, stack: Stack) -> None:
    """A page of an origin that is not listed is refused, and the refusal of a preflight request names the setting."""
    page.goto(f"{stack.mailbox}/")  # its port is not in the list
    answer = page.request.fetch(
        f"{stack.url}/api/v1/auth/login",
        method="OPTIONS",
        headers={"Origin": stack.mailbox, "Access-Control-Request-Method": "POST"},
    )
    assert answer.status == 403
    assert f"{stack.mailbox}, which is not allowed; TEQUIPY_ALLOWED_ORIGINS" in answer.json()["detail"]


def make_account(stack: Stack) -> str:
    """Register, follow the mailed link, and return the address."""
    correlation_id = f"docs-{uuid4().hex}"
    stack.register(correlation_id)
    eventually("the mail is sent", lambda: len(stack.mails(correlation_id)) > 0)
    token = re.search(r"#token=([\w.-]+)", stack.mails(correlation_id)[0].as_string())
    assert token is not None
    answer = httpx.post(f"{stack.url}/api/v1/auth/verify-email", json={"token": token[1]})
    assert answer.status_code == 204, answer.text
    return f"{correlation_id}@example.com"


def execute(page: Page, operation: str, status: int, body: object = None) -> str:
    """Try an operation out with its first example or with another body; return the shown response."""
    block = page.locator(f"[id^='operations-'][id$='-{operation}']")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(json.dumps(body))
    block.get_by_role("button", name="Execute").click()
    response = block.locator(".live-responses-table")
    expect(response.locator("tbody .response-col_status").first).to_contain_text(str(status))
    return response.inner_text()


def test_the_docs_page_tries_sessions_out(page: Page, stack: Stack) -> None:
    """After a login with cookie, refresh and logout work with their examples; an entered token survives a reload."""
    email = make_account(stack)
    page.goto(f"{stack.url}/docs")
    execute(page, "login", 200, {"email": email, "password": PASSWORD})
    token = re.search(r'"access_token": "([^"]+)"', execute(page, "refresh", 200))
    assert token is not None
    page.get_by_role("button", name="Authorize").first.click()
    form = page.locator(".auth-container", has_text="AccessToken")
    form.locator("input").fill(token[1])
    form.get_by_role("button", name="Apply credentials").click()
    page.reload()
    assert email in execute(page, "get_me", 200)
    execute(page, "logout", 204)
    assert "refresh" not in {each["name"] for each in page.context.cookies()}
