"""Each dependency is stopped, killed, frozen and restarted under load, as clients see it.

The load is 50 requests a second in the long proofs, and 20 in the short ones, which find the same faults.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import httpx
import pytest

from tequipy_devstack.proving import (
    Api,
    Deployment,
    Findings,
    Link,
    Load,
    Route,
    count,
    endure,
    eventually,
    failed,
    fetch,
    in_background,
    traffic,
)
from tequipy_devstack.servers import PostgresServer, Server, ValkeyServer

Fault = Callable[[Server], AbstractContextManager[None]]

# One API serves all these tests, so they must run in one pytest process.
pytestmark = pytest.mark.xdist_group("dependencies")

LENGTHS = [pytest.param(30, 20, id="short"), pytest.param(750, 50, id="long", marks=pytest.mark.prove)]
"""The duration of a fault in requests, and the requests a second."""


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def killed(server: Server) -> Iterator[None]:
    server.kill()
    yield
    server.restart()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    server.freeze()
    yield
    server.thaw()


@contextmanager
def restarted(server: Server) -> Iterator[None]:
    server.restart()
    yield


@contextmanager
def restarted_empty(server: Server) -> Iterator[None]:
    assert isinstance(server, ValkeyServer)
    server.restart(empty=True)
    yield


@pytest.fixture(scope="module")
def api(deployment: Deployment) -> Iterator[Api]:
    with deployment.api() as api:
        yield api


@pytest.fixture(scope="module")
def routes(api: Api) -> list[Route]:
    return traffic(api.url)


def check_what_always_holds(findings: Findings) -> None:
    """Check that requests fail only during the outage, readiness never hangs, and recovery takes seconds."""
    assert count(failed(findings.outside)) == {}
    assert all(probe.seconds < 10 for probe in findings.probes), findings.meanwhile
    assert findings.recovery_seconds < 30


@pytest.mark.parametrize("fault", [stopped, killed, frozen, restarted])
@pytest.mark.parametrize(("requests", "rate"), LENGTHS)
def test_postgres_goes_away_and_comes_back(
    api: Api, routes: list[Route], postgres: PostgresServer, fault: Fault, requests: int, rate: float
) -> None:
    """Failures are 503 with Retry-After and end with the outage; requests without database work throughout."""
    noticed = None if fault is restarted else "503 not_ready"
    findings = endure(fault(postgres), api.url, routes, requests=requests, rate=rate, noticed=noticed)
    print(findings.describe(f"PostgreSQL {fault.__name__}"))
    check_what_always_holds(findings)
    refused = failed(findings.inside)
    assert set(count(refused)) <= {"503 unavailable"}
    assert all(int(sample.retry_after or 0) >= 1 for sample in refused)
    assert {sample.path for sample in refused} <= {"/api/v1/auth/sessions", "/api/v1/auth/register"}


@pytest.mark.parametrize("fault", [stopped, killed, frozen, restarted, restarted_empty])
@pytest.mark.parametrize(("requests", "rate"), LENGTHS)
def test_redis_goes_away_and_comes_back(
    api: Api, routes: list[Route], redis: ValkeyServer, fault: Fault, requests: int, rate: float
) -> None:
    """No request fails during the outage; readiness stays 200 and reports `degraded`."""
    noticed = "200 degraded" if fault in {stopped, killed, frozen} else None
    findings = endure(fault(redis), api.url, routes, requests=requests, rate=rate, noticed=noticed)
    print(findings.describe(f"Redis {fault.__name__}"))
    check_what_always_holds(findings)
    assert count(failed(findings.requests)) == {}
    assert set(count(findings.probes)) <= {"200 ready", "200 degraded"}


@pytest.mark.parametrize(("requests", "rate"), LENGTHS)
def test_storage_goes_away_and_comes_back(
    api: Api, routes: list[Route], deployment: Deployment, requests: int, rate: float
) -> None:
    """With a file in place of the folder readiness is 503, and requests without storage work."""

    @contextmanager
    def replaced() -> Iterator[None]:
        aside = deployment.storage.rename(deployment.folder / "aside")
        deployment.storage.touch()
        yield
        deployment.storage.unlink()
        aside.rename(deployment.storage)

    findings = endure(replaced(), api.url, routes, requests=requests, rate=rate, noticed="503 not_ready")
    print(findings.describe("Storage replaced by a file"))
    check_what_always_holds(findings)
    assert count(failed(findings.requests)) == {}


@contextmanager
def slow(link: Link, delay: float) -> Iterator[None]:
    link.delay = delay
    yield
    link.delay = 0


@pytest.fixture(scope="module")
def links(postgres: PostgresServer, redis: ValkeyServer) -> Iterator[tuple[Link, Link]]:
    with in_background(Link(postgres.port)) as to_postgres, in_background(Link(redis.port)) as to_redis:
        yield to_postgres, to_redis


@pytest.fixture(scope="module")
def far_database_url(links: tuple[Link, Link], postgres: PostgresServer) -> str:
    return postgres.url("tequipy").replace(f":{postgres.port}", f":{links[0].port}")


@pytest.fixture(scope="module")
def far_api(
    deployment: Deployment, links: tuple[Link, Link], far_database_url: str, redis: ValkeyServer
) -> Iterator[Api]:
    """Yield another API process that reaches the servers through the links."""
    cache_url = redis.url().replace(f":{redis.port}", f":{links[1].port}")
    with deployment.api(TEQUIPY_DATABASE__URL=far_database_url, TEQUIPY_CACHE__URL=cache_url) as api:
        yield api


@pytest.mark.parametrize(
    ("delay", "requests", "rate"),
    [pytest.param(0.01, 40, 20, id="short"), pytest.param(1, 750, 50, id="long", marks=pytest.mark.prove)],
)
def test_a_slow_postgres_makes_slow_answers(
    far_api: Api, routes: list[Route], links: tuple[Link, Link], delay: float, requests: int, rate: float
) -> None:
    """A delay of 20 ms per round trip slows responses; at 2 s requests wait for the pool, and get 503 after 5 s."""
    findings = endure(slow(links[0], delay), far_api.url, routes, requests=requests, rate=rate)
    print(findings.describe(f"PostgreSQL {2 * delay:g} s away"))
    check_what_always_holds(findings)
    assert set(count(failed(findings.inside))) == ({"503 unavailable"} if delay == 1 else set())


def test_an_account_that_loads_too_slowly_is_503(
    deployment: Deployment, routes: list[Route], links: tuple[Link, Link], far_database_url: str, redis: ValkeyServer
) -> None:
    """A cached read whose load exceeds the cache's `hard_timeout` gives 503."""
    policies = '{"user_profile": {"ttl": 300, "hard_timeout": 0.5}}'
    me = next(route for route in routes if route.path.endswith("/me"))
    with deployment.api(TEQUIPY_DATABASE__URL=far_database_url, TEQUIPY_CACHE__POLICIES=policies) as api:
        redis.restart(empty=True)
        with slow(links[0], 0.3):
            answer = httpx.get(f"{api.url}{me.path}", headers=dict(me.headers), timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(("requests", "rate"), LENGTHS)
def test_a_slow_redis_is_left_alone(
    far_api: Api, routes: list[Route], links: tuple[Link, Link], requests: int, rate: float
) -> None:
    """A Redis that takes a second to answer is not used, and no request fails."""
    findings = endure(slow(links[1], 0.5), far_api.url, routes, requests=requests, rate=rate)
    print(findings.describe("Redis 1 s away"))
    check_what_always_holds(findings)
    assert count(failed(findings.requests)) == {}
    assert "200 degraded" in count(findings.meanwhile)


def test_the_api_starts_before_its_servers(
    deployment: Deployment, postgres: PostgresServer, redis: ValkeyServer
) -> None:
    """Started without servers it runs and is not ready; with PostgreSQL it is ready and serves without Redis."""
    api = deployment.api()
    redis.kill()
    postgres.kill()
    with ExitStack() as stack:
        api.start()
        stack.push(api)
        eventually("it runs", lambda: status(api, "health") == 200)
        assert status(api, "readiness") == 503
        postgres.restart()
        api.await_ready()
        with Load(api.url, traffic(api.url), rate=20) as load:
            load.send(20)
        redis.restart()
    assert failed(load.samples) == []


def status(api: Api, route: str) -> int:
    try:
        return fetch(f"{api.url}/api/v1/{route}").status_code
    except httpx.TransportError:
        return 0
