"""Rate limits by client address."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tequipy_auth.api import RATE_POLICIES
from tequipy_auth.testing import PUBLIC_URL, MemoryAuthUnitOfWork

from .limited_app import build_limited_app
from .routes import AUTH

EMAIL = {"email": "nobody@example.com"}


@pytest.fixture
async def client(work: MemoryAuthUnitOfWork) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build_limited_app(work)), base_url=PUBLIC_URL) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "name", "limit", "seconds"),
    [
        ("register", "register", 20, 3600),
        ("password/forgot", "forgot", 20, 3600),
        ("verify-email/resend", "forgot", 20, 3600),
        ("login", "login", 60, 60),
        ("refresh", "refresh", 120, 60),
        ("verify-email", "login", 60, 60),
        ("reauthenticate", "login", 60, 60),
        ("password/change", "login", 60, 60),
        ("password/reset", "login", 60, 60),
        ("logout", "default", 600, 60),
    ],
)
async def test_each_response_names_its_policy(
    client: httpx.AsyncClient, path: str, name: str, limit: int, seconds: int
) -> None:
    """Every response has the rate limit headers of the contract, also for invalid requests."""
    answer = await client.post(f"{AUTH}/{path}", json={})
    assert answer.headers["ratelimit-policy"] == f'"{name}";q={limit};w={seconds}'


async def test_too_many_requests_are_refused(client: httpx.AsyncClient, work: MemoryAuthUnitOfWork) -> None:
    """The 21st request of an hour gets 429; for the first twenty the worker decides which mails are sent."""
    answers = [await client.post(f"{AUTH}/password/forgot", json=EMAIL) for _ in range(20)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, b'{"status":"accepted"}')}
    assert len(work.outbox.tasks) == 20
    refused = await client.post(f"{AUTH}/verify-email/resend", json=EMAIL)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1


def test_the_names_are_those_of_the_settings() -> None:
    """The names of the policies are those of `TEQUIPY_RATE_LIMITS__<NAME>`."""
    assert sorted(RATE_POLICIES) == ["forgot", "login", "refresh", "register"]
