"""Breached passwords in the shipped app: refused, counted, and no obstacle while the API that knows them hangs."""

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_devstack.proving.network import in_background

from .instance import StartApi

BREACHED = "a password of a data leak"
GOOD = {"email": "ada@example.com", "password": "correct horse battery staple"}


class RangeApi:
    """An API that knows one password, and answers nothing while `hangs` is set."""

    def __init__(self) -> None:
        self.url = ""
        self.hangs = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self.hangs:
            await reader.read()  # until the client gives up
        body = f"{hashlib.sha1(BREACHED.encode(), usedforsecurity=False).hexdigest().upper()[5:]}:3\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        writer.close()


@asynccontextmanager
async def running(api: RangeApi) -> AsyncIterator[None]:
    server = await asyncio.start_server(api.answer, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield


@pytest.fixture
def range_api() -> Iterator[RangeApi]:
    api = RangeApi()
    with in_background(running(api)):
        yield api


async def test_a_breached_password_is_refused_and_counted(settings: ApiSettings, range_api: RangeApi) -> None:
    """A breached password gets 422 with the reason, another one 202; so does each while the API hangs."""
    auth = settings.auth.model_copy(update={"breached_passwords_url": range_api.url})
    app = create_app(settings.model_copy(update={"auth": auth}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client,
    ):
        refused = await client.post("/api/v1/auth/register", json=GOOD | {"password": BREACHED})
        assert (refused.status_code, refused.json()["reasons"]) == (422, ["breached"])
        assert (await client.post("/api/v1/auth/register", json=GOOD)).status_code == 202
        range_api.hangs = True
        unchecked = await client.post("/api/v1/auth/register", json=GOOD | {"password": BREACHED})
        assert unchecked.status_code == 202
    value = app.state.registry.get_sample_value
    for outcome in ("breached", "not_breached", "failed"):
        assert value("auth_breached_password_checks_total", {"outcome": outcome}) == 1
    call = {"profile": "default", "host": "127.0.0.1", "method": "GET"}
    for outcome, calls in (("200", 2), ("deadline_exceeded", 1)):
        assert value("http_client_requests_total", {**call, "outcome": outcome}) == calls


def test_the_server_refuses_a_breached_password(start_api: StartApi, range_api: RangeApi) -> None:
    """`serve` starts with the setting, and looks the password up."""
    instance = start_api(TEQUIPY_AUTH__BREACHED_PASSWORDS_URL=range_api.url)
    instance.wait_until_ready()
    answer = httpx.post(f"{instance.url}/api/v1/auth/register", json=GOOD | {"password": BREACHED})
    assert (answer.status_code, answer.json()["reasons"]) == (422, ["breached"])


def test_the_command_refuses_a_breached_password(
    run_command: Callable[..., subprocess.CompletedProcess[str]], range_api: RangeApi
) -> None:
    """`create-admin` looks the password up too."""
    arguments = ("create-admin", "--email", "root@example.com")
    url = {"TEQUIPY_AUTH__BREACHED_PASSWORDS_URL": range_api.url}
    refused = run_command(*arguments, stdin=f"{BREACHED}\n", **url)
    assert refused.returncode == 1
    assert "(breached)" in refused.stderr
    assert BREACHED not in refused.stderr
    assert run_command(*arguments, stdin=f"{BREACHED}\n").returncode == 0, "nothing is looked up by default"
