"""Sessions and keys on real processes: a logout takes effect everywhere, and faults and rotations end no session."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median

import httpx
import pytest

from tequipy_devstack.proving import Api, Deployment, Load, Route, count, eventually, failed
from tequipy_devstack.proving.apps import program
from tequipy_devstack.proving.traffic import credentials
from tequipy_devstack.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.xdist_group("sessions")
QUICK = [pytest.mark.prove, pytest.mark.quick]

REFRESH, ME, LOGOUT = (f"/api/v1/auth/{name}" for name in ("refresh", "me", "logout"))
JWKS_MAX_AGE = 2
"""Seconds before a next key may sign in these proofs, instead of 300."""


@pytest.fixture(scope="module")
def apis(deployment: Deployment) -> Iterator[tuple[Api, Api]]:
    """Yield two API processes on one PostgreSQL and one Valkey."""
    with ExitStack() as stack:
        one, other = (deployment.api(TEQUIPY_AUTH__POLICY__JWKS_MAX_AGE=str(JWKS_MAX_AGE)) for _ in range(2))
        yield stack.enter_context(one), stack.enter_context(other)


def log_in(api: Api) -> dict[str, str]:
    """Return the tokens of a new session."""
    answer = httpx.post(f"{api.url}/api/v1/auth/login", json=dict(credentials()), timeout=60)
    tokens: dict[str, str] = answer.raise_for_status().json()
    return tokens


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def await_refusal(api: Api, headers: dict[str, str]) -> None:
    """Return when a process refuses an access token."""
    with httpx.Client(base_url=api.url) as client:
        eventually("the token is refused", lambda: client.get(ME, headers=headers).status_code == 401)


@pytest.mark.parametrize(
    "rounds", [pytest.param(3, id="short", marks=QUICK), pytest.param(50, id="long", marks=pytest.mark.prove)]
)
def test_a_logout_reaches_every_process(apis: tuple[Api, Api], rounds: int) -> None:
    """After a logout on one process, another one that accepted the token refuses it within 100 ms."""
    one, other = apis
    waited, alone = [], []
    for _ in range(rounds):
        headers = bearer(log_in(one))
        began = time.monotonic()
        assert httpx.get(f"{other.url}{ME}", headers=headers).status_code == 200
        alone.append(1000 * (time.monotonic() - began))
        assert httpx.post(f"{one.url}{LOGOUT}", headers=headers).status_code == 204
        ended = time.monotonic()
        await_refusal(other, headers)
        waited.append(1000 * (time.monotonic() - ended))
    print(
        f"\nlogout to refusal on another process: median {median(waited):.1f} ms, worst {max(waited):.1f} ms; "
        f"a request by itself: median {median(alone):.1f} ms"
    )


@pytest.mark.parametrize("empty", [False, True])
def test_a_logout_takes_effect_after_an_outage_of_redis(
    apis: tuple[Api, Api], redis: ValkeyServer, empty: bool
) -> None:
    """A session that ends while Redis is down is refused by other processes once it is back, with or without data."""
    one, other = apis
    headers = bearer(log_in(one))
    assert httpx.get(f"{other.url}{ME}", headers=headers).status_code == 200
    redis.kill()
    assert httpx.post(f"{one.url}{LOGOUT}", headers=headers, timeout=30).status_code == 204
    redis.restart(empty=empty)
    await_refusal(other, headers)


def rotate(deployment: Deployment) -> None:
    """Rotate the signing keys by the command, as soon as the next key may sign."""
    environment = deployment.environment | {"TEQUIPY_AUTH__POLICY__JWKS_MAX_AGE": str(JWKS_MAX_AGE)}

    def rotated() -> bool:
        done = subprocess.run(
            [program("tequipy-api"), "keys", "rotate"],
            env=environment,
            cwd=deployment.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0 or "rotate after" in done.stderr, done.stderr
        return done.returncode == 0

    eventually("the keys are rotated", rotated)


@pytest.mark.parametrize(
    ("rate", "requests"),
    [pytest.param(20, 300, id="short", marks=QUICK), pytest.param(100, 5000, id="long", marks=pytest.mark.prove)],
)
def test_rotating_the_keys_loses_no_request(
    apis: tuple[Api, Api], deployment: Deployment, rate: int, requests: int
) -> None:
    """During three rotations no authenticated request on two processes fails, with old and new tokens."""
    one, other = apis
    held = [bearer(log_in(api)) for api in apis]
    routes = [Route("GET", ME, 200, headers=headers) for headers in held]
    failures = []

    def refresh_here_use_there(tokens: dict[str, str]) -> dict[str, str]:
        """Get a token from one process, signed by another key after each rotation, and use it at the other."""
        answer = httpx.post(f"{one.url}{REFRESH}", json={"refresh_token": tokens["refresh_token"]}, timeout=30)
        if answer.status_code != 200:
            failures.append(f"refresh {answer.status_code} {answer.text}")
            return tokens
        fresh: dict[str, str] = answer.json()
        answer = httpx.get(f"{other.url}{ME}", headers=bearer(fresh), timeout=30)
        if answer.status_code != 200:
            failures.append(f"me {answer.status_code} {answer.text}")
        return fresh

    tokens, rounds = log_in(one), 0
    with Load(one.url, routes, rate=rate) as here, Load(other.url, routes, rate=rate) as there:
        for _ in range(3):
            rotate(deployment)
            deadline = time.monotonic() + 2 * JWKS_MAX_AGE
            while time.monotonic() < deadline:
                tokens = refresh_here_use_there(tokens)
                rounds += 1
        here.send(max(1, requests - len(here.samples)))
    samples = [*here.samples, *there.samples]
    print(
        f"\n3 rotations on two processes: {len(samples)} requests with old tokens, {rounds} refreshes, "
        f"failed {len(failed(samples)) + len(failures)}"
    )
    assert count(failed(samples)) == {}
    assert failures == []


async def keep_refreshing(url: str, token: str, over: threading.Event, lost: list[str]) -> int:
    """Refresh until the end, repeating each refresh until it is answered; return the number of responses."""
    answered = 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while not over.is_set():
            while True:
                try:
                    answer = await client.post(REFRESH, json={"refresh_token": token})
                except httpx.TransportError:
                    answer = None  # it is unknown whether the server handled it
                if answer is not None and answer.status_code < 500:
                    break
                await asyncio.sleep(0.2)
            if answer.status_code != 200:
                lost.append(f"{answer.status_code} {answer.json()['code']}")
                return answered
            token = answer.json()["refresh_token"]
            answered += 1
            await asyncio.sleep(0.05)
    return answered


def outages(postgres: PostgresServer, redis: ValkeyServer, seconds: float) -> Iterator[str]:
    """Freeze, kill and restart each server in turn for up to `seconds`; yield a description after each fault."""
    for server in (postgres, redis):
        server.freeze()
        time.sleep(seconds)
        server.thaw()
        yield f"{server.name} frozen"
        server.kill()
        time.sleep(seconds)
        server.restart()
        yield f"{server.name} killed"
        server.restart()
        yield f"{server.name} restarted"


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        pytest.param(5, 1.0, id="short"),
        pytest.param(25, 20.0, id="long", marks=[pytest.mark.prove, pytest.mark.timeout(600)]),
    ],
)
def test_faults_end_no_session(
    apis: tuple[Api, Api], postgres: PostgresServer, redis: ValkeyServer, clients: int, seconds: float
) -> None:
    """Sessions that refresh during all faults of the servers, repeating until answered, are never lost."""
    tokens = [log_in(apis[number % 2])["refresh_token"] for number in range(clients)]
    lost: list[str] = []

    over = threading.Event()

    async def run() -> list[int]:
        clients = (keep_refreshing(apis[number % 2].url, token, over, lost) for number, token in enumerate(tokens))
        return await asyncio.gather(*clients)

    # The clients run in a thread and the outages in the main thread, because a server ends with its starting thread.
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, run())
        try:
            for what in outages(postgres, redis, seconds):
                print(f"  {what}")
        finally:
            over.set()
        answered = running.result()
    print(f"\n{sum(answered)} refreshes of {clients} sessions through 6 outages: lost {len(lost)}")
    assert lost == []
    assert min(answered) > 0
