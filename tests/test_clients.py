"""Both generated clients against the running system, the TypeScript one in Chromium, on a page of another origin."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO
from uuid import uuid4

import pytest
from playwright.sync_api import Page
from prometheus_client.parser import text_string_to_metric_families

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Api, Deployment, fetch
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD

from .accounts import mailed_token
from .browser import CHROMIUM
from .wheels import find_uv

ROOT = Path(__file__).parents[1]
CLOCK = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
PYTHON = ROOT / "clients/python/.venv/bin/python"
TYPESCRIPT = ROOT / "clients/typescript"
EXPIRY = 1000
"""Seconds; an access token is valid for 900, and 30 more for wrong clocks."""

pytestmark = [
    pytest.mark.prove,
    pytest.mark.quick,
    pytest.mark.skipif(CLOCK is None, reason="apt-get install libfaketime"),
]
in_chromium = pytest.mark.skipif(
    CHROMIUM is None or shutil.which("npm") is None, reason="apt-get install chromium nodejs npm"
)

RESETS = """
import asyncio, sys
from tequipy_client import Session
from tequipy_client.contract.api import accounts_and_sessions as accounts
from tequipy_client.contract.models import AddressBody

async def main(url):
    async with Session(url) as session:
        body = AddressBody(email="nobody@example.com")
        await asyncio.gather(*(accounts.forgot_password(session.http, body=body) for _ in range(2)))

asyncio.run(main(*sys.argv[1:]))
"""
CALLS = """
import asyncio, sys
from tequipy_client import Session
from tequipy_client.contract.api import accounts_and_sessions as accounts

async def main(url, email, password):
    async with Session(url) as session:
        await session.login(email, password)
        print("logged in", flush=True)
        sys.stdin.readline()
        found = await asyncio.gather(*(accounts.get_me(session.http) for _ in range(20)))
        print([me.email for me in found] == [email] * 20)

asyncio.run(main(*sys.argv[1:]))
"""
PAGE = """<!doctype html><title>Client</title>
<script type="importmap">
{"imports": {"@tequipy/client": "/client/index.js", "openapi-fetch": "/openapi-fetch/index.mjs"}}
</script>
<script type="module">
import { data, ProblemError, Session, SessionEnded } from "@tequipy/client";
const baseUrl = "API";
Object.assign(window, { data, ProblemError, SessionEnded, session: new Session({ baseUrl }) });
</script>
"""
REGISTER = """([email, password]) =>
    data(session.api.POST("/api/v1/auth/register", { body: { email, password, name: "Ada" } }))"""
JOURNEY = """async ([token, email, password]) => {
    const me = () => data(session.api.GET("/api/v1/auth/me"));
    await session.api.POST("/api/v1/auth/verify-email", { body: { token } });
    await session.login(email, password);
    const found = [(await me()).email];
    await session.refresh();
    found.push((await me()).email, document.cookie);
    await session.logout();
    const error = await me().catch((error) => error);
    found.push(error instanceof SessionEnded, error.code);
    return found;
}"""
RESETS_OF_PAGE = """async () => {
    const body = { email: "nobody@example.com" };
    await Promise.all([1, 2].map(() => session.api.POST("/api/v1/auth/password/forgot", { body })));
}"""
LOGIN = "([email, password]) => session.login(email, password)"
TWENTY = """async () => {
    const calls = Array.from({ length: 20 }, () => data(session.api.GET("/api/v1/auth/me")));
    return (await Promise.all(calls)).map((me) => me.email);
}"""


@dataclass
class System:
    """An API process whose clock can be advanced, a worker that sends mails, and the server of a page."""

    api: Api
    mails: MailSink
    page_url: str
    clock: Path
    ahead: int = 0

    def let_tokens_expire(self) -> None:
        """Advance the clock of the API."""
        self.ahead += EXPIRY
        self.clock.write_text(f"+{self.ahead}")

    def counts(self, metric: str, label: str, **labels: str) -> Counter[str]:
        """Return a counter of the API by the values of one label, for these values of others."""
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(fetch(f"{self.api.url}/metrics").text):
            for sample in family.samples:
                if sample.name == metric and labels.items() <= sample.labels.items():
                    found[sample.labels[label]] += int(sample.value)
        return found

    def refreshes(self) -> Counter[str]:
        """Return the number of refreshes until now, by their outcome."""
        return self.counts("auth_operations_total", "status", operation="refresh")

    def reset_requests(self) -> Counter[str]:
        """Return the number of requests for a link to reset a password until now, by their status."""
        return self.counts("http_requests_total", "status", route="/api/v1/auth/password/forgot")


@pytest.fixture(scope="module", autouse=True)
def clients() -> None:
    """Generate and build both clients, unless they are newer than the contract."""
    subprocess.run([ROOT / "clients/build"], env={**os.environ, "UV": find_uv()}, check=True, timeout=110)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve the files of a folder on a port, which is yielded, while the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def system(deployment: Deployment, mails: MailSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("page")
    clock = tmp_path_factory.mktemp("clock") / "clock"
    clock.write_text("+0")
    (folder / "client").symlink_to(TYPESCRIPT / "dist")
    (folder / "openapi-fetch").symlink_to(TYPESCRIPT / "node_modules/openapi-fetch/dist")
    with served(folder) as port:
        origin = f"http://localhost:{port}"
        api = deployment.api(
            LD_PRELOAD=str(CLOCK),
            FAKETIME_TIMESTAMP_FILE=str(clock),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            TEQUIPY_AUTH__POLICY__ACCESS_TOKEN_TTL="900",
            TEQUIPY_RATE_LIMITS__FORGOT="1/2",
            TEQUIPY_ALLOWED_ORIGINS=f'["{origin}"]',
        )
        (folder / "index.html").write_text(PAGE.replace("API", f"http://localhost:{api.port}"))
        with api, deployment.worker(), deployment.relay():
            yield System(api, mails, origin, clock)


@contextmanager
def python(*arguments: str | Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Run a program in the environment of the Python client; yield its input and output, and await its success."""
    with subprocess.Popen(
        [PYTHON, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        assert process.stdin
        assert process.stdout
        yield process.stdin, process.stdout
    assert process.returncode == 0


def test_the_python_client_makes_the_whole_journey(system: System) -> None:
    """The example registers, verifies by the mailed link, logs in, refreshes and logs out."""
    email = f"{uuid4().hex}@example.com"
    example = ROOT / "clients/python/examples/journey.py"
    with python(example, system.api.url, email) as (answers, output):
        assert output.readline() == "registered; the link in the mail:\n"
        answers.write(
            f"https://app.example.com/verify-email#token={mailed_token(system.mails, email, 'verify-email')}\n"
        )
        answers.flush()
        assert output.read().splitlines() == [
            "verified",
            f"logged in: {email}, verified: True",
            "refreshed: 1 session",
            "logged out: unauthenticated",
            "ended: session_revoked",
        ]


def test_twenty_calls_of_the_python_client_cause_one_refresh(system: System) -> None:
    """Twenty concurrent calls over an expired token refresh once, and all succeed."""
    with python("-c", CALLS, system.api.url, ADMIN, PASSWORD) as (answers, output):
        assert output.readline() == "logged in\n"
        before = system.refreshes()
        system.let_tokens_expire()
        answers.write("\n")
        answers.flush()
        assert output.read() == "True\n"
    assert system.refreshes() - before == {"ok": 1}


def test_the_python_client_waits_when_it_is_limited(system: System) -> None:
    """The second of two requests is refused, and sent again after the time that the API names."""
    before = system.reset_requests()
    with python("-c", RESETS, system.api.url):
        pass
    found = system.reset_requests() - before
    assert (found["202"], found["429"] > 0) == (2, True)


def load(page: Page, system: System) -> None:
    """Load the page, and wait until its client is there."""
    page.goto(system.page_url)
    page.wait_for_function("window.session")


@in_chromium
def test_the_browser_client_makes_the_whole_journey(system: System, page: Page) -> None:
    """A page of another port of localhost registers, verifies, logs in, refreshes by cookie and logs out."""
    email = f"{uuid4().hex}@example.com"
    load(page, system)
    page.evaluate(REGISTER, [email, PASSWORD])
    token = mailed_token(system.mails, email, "verify-email")
    found = page.evaluate(JOURNEY, [token, email, PASSWORD])
    assert found == [email, email, "", True, "refresh_missing"]


@in_chromium
def test_twenty_calls_of_a_page_cause_one_refresh(system: System, page: Page) -> None:
    """Twenty concurrent calls over an expired token refresh once, with the cookie of another origin."""
    load(page, system)
    page.evaluate(LOGIN, [ADMIN, PASSWORD])
    before = system.refreshes()
    system.let_tokens_expire()
    assert page.evaluate(TWENTY) == [ADMIN] * 20
    assert system.refreshes() - before == {"ok": 1}


@in_chromium
def test_two_tabs_refresh_one_after_another(system: System, page: Page) -> None:
    """Two tabs with twenty calls each over expired tokens refresh once each, and none meets a replaced cookie."""
    load(page, system)
    page.evaluate(LOGIN, [ADMIN, PASSWORD])
    other = page.context.new_page()
    load(other, system)
    assert other.evaluate("session.resume()")
    before = system.refreshes()
    system.let_tokens_expire()
    for tab in (page, other):
        tab.evaluate(f"() => {{ window.calls = ({TWENTY})(); }}")
    assert [tab.evaluate("window.calls") for tab in (page, other)] == [[ADMIN] * 20] * 2
    assert system.refreshes() - before == {"ok": 2}


@in_chromium
def test_a_page_waits_when_it_is_limited(system: System, page: Page) -> None:
    """A page of another origin may read `Retry-After`, and sends the refused request again after that time."""
    load(page, system)
    before = system.reset_requests()
    page.evaluate(RESETS_OF_PAGE)
    found = system.reset_requests() - before
    assert (found["202"], found["429"] > 0) == (2, True)
