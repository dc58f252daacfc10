"""Auth in memory with its real routes, and HTTP clients for them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_auth import Auth
from tequipy_auth.api import wire_auth
from tequipy_auth.tasks import SEND_MAIL, build_handlers
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, SystemClock
from tequipy_platform.testing import CountingIds, RecordingMailer
from tequipy_platform.web import CatchErrors, LimitBodies, NoStore, Pipeline, wire_errors

from .routes import EMAIL, PASSWORD

OWN_ORIGINS = frozenset({"https://app.example.com", "https://friend.example.net"})


@pytest.fixture
def work() -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(SystemClock())


@pytest.fixture
def auth(work: MemoryAuthUnitOfWork) -> Auth:
    return build_fake_auth(work, origins=OWN_ORIGINS, origins_setting="SHOP_ORIGINS")


FREE_APPS: list[FastAPI] = []
USED_APPS: list[FastAPI] = []


def serve(auth: Auth) -> FastAPI:
    """Return an app of this test alone until the test ends; do not change its routes.

    Later tests use it again, because FastAPI analyses all routes at the first request to an app, which takes longer
    than most of these tests.
    """
    app = FREE_APPS.pop() if FREE_APPS else build_app(auth)
    USED_APPS.append(app)
    app.state.auth = auth
    return app


def build_app(auth: Auth) -> FastAPI:
    app = FastAPI(middleware=[Middleware(Pipeline, [NoStore(), LimitBodies(), CatchErrors()])])
    wire_errors(app)
    wire_auth(app, auth)
    return app


@pytest.fixture(autouse=True)
def apps_are_used_again() -> Iterator[None]:
    yield
    FREE_APPS.extend(USED_APPS)
    USED_APPS.clear()


@pytest.fixture
async def client(auth: Auth) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the deployed app with https, so that it keeps secure cookies."""
    transport = httpx.ASGITransport(serve(auth))
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.com") as client:
        yield client


@pytest.fixture
async def local_client(work: MemoryAuthUnitOfWork) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same accounts on a developer's machine."""
    transport = httpx.ASGITransport(serve(build_fake_auth(work, local=True, origins=OWN_ORIGINS)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture
def make_user(auth: Auth) -> Callable[[], Awaitable[None]]:
    """Create an administrator with the address and password of these tests."""
    return lambda: auth.registration.create_admin(email=EMAIL, password=PASSWORD)


@pytest.fixture
async def user(make_user: Callable[[], Awaitable[None]]) -> None:
    await make_user()


@pytest.fixture
async def access_token(make_user: Callable[[], Awaitable[None]], client: httpx.AsyncClient) -> str:
    await make_user()
    answer = await client.post("/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD})
    token: str = answer.json()["access_token"]
    return token


@pytest.fixture
def mailed_token(auth: Auth, work: MemoryAuthUnitOfWork) -> Callable[[], Awaitable[str]]:
    """Run the mail task of the only registration, and return the token from the mail."""

    async def deliver() -> str:
        mailer = RecordingMailer()
        send_mail = build_handlers(auth, mailer)[SEND_MAIL]
        (asked,) = work.outbox.tasks
        await send_mail(Delivery(CountingIds()(), asked.task), **asked.payload)
        (mail,) = mailer.mails
        _, _, token = mail.text.partition("#token=")
        return token.strip()

    return deliver


@pytest.fixture
def verify(client: httpx.AsyncClient, mailed_token: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[None]]:
    """Verify the address with the token from the mail."""

    async def follow() -> None:
        answer = await client.post("/api/v1/auth/verify-email", json={"token": await mailed_token()})
        assert answer.status_code == 204

    return follow
