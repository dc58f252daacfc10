"""Rate limits over HTTP: keys, response fields, refusals and exempt routes."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_caching import RateDecision, RatePolicy
from tequipy_caching.api import (
    LimitRates,
    RateLimitSettings,
    client_keys,
    declared_rates,
    wire_rate_limits,
    wire_rate_policy,
    wire_unlimited_routes,
)
from tequipy_caching.cache.keys import Key
from tequipy_caching.testing import MemoryRateLimiter
from tequipy_platform.web import (
    CatchErrors,
    CloseConnections,
    Cors,
    LimitBodies,
    Pipeline,
    Readiness,
    SecurityHeaders,
    StrictModel,
    wire_errors,
    wire_health,
)

OURS = "https://app.example.com"


class FixedWindow(MemoryRateLimiter):
    """A limiter in memory whose counts never expire."""

    def __init__(self) -> None:
        super().__init__()
        self.hits: Counter[tuple[RatePolicy, Key]] = Counter()

    async def hit_all(self, hits: Sequence[tuple[RatePolicy, Key]], cost: int = 1) -> tuple[RatePolicy, RateDecision]:
        assert cost == 1
        if all(self.hits[hit] < hit[0].limit for hit in hits):
            self.hits.update(hits)
            decisions = [(policy, self.decide(policy, key, allowed=True)) for policy, key in hits]
        else:
            full = [(policy, key) for policy, key in hits if self.hits[policy, key] >= policy.limit]
            decisions = [(policy, self.decide(policy, key, allowed=False)) for policy, key in full]
        return min(decisions, key=lambda each: each[1].remaining)

    def decide(self, policy: RatePolicy, key: Key, *, allowed: bool) -> RateDecision:
        used, each = self.hits[policy, key], policy.period / policy.limit
        remaining = max(0, policy.limit - used)
        return RateDecision(
            allowed, policy.limit, remaining, 0 if allowed else each, min(used, policy.limit) * each, degraded=False
        )


class Settings(RateLimitSettings):
    names = declared_rates({"login": ("60/60", ())})


class Body(StrictModel):
    email: str


def make_app(limiter: FixedWindow, **rates: str) -> FastAPI:
    readiness = Readiness([])
    app = FastAPI(
        middleware=[
            Middleware(
                Pipeline,
                [
                    CloseConnections(readiness),
                    SecurityHeaders(),
                    Cors((OURS,)),
                    LimitRates(limiter, Settings.model_validate(rates)),
                    LimitBodies(),
                    CatchErrors(),
                ],
            )
        ]
    )
    wire_rate_limits(app)
    wire_errors(app)
    wire_health(app, readiness)

    @app.post("/login")
    async def login(body: Body) -> Body:
        return body

    @app.post("/other")
    async def other(body: Body) -> Body:
        return body

    @app.get("/keys")
    async def keys() -> dict[str, str]:
        return {}

    wire_rate_policy(app, "login", "2/3", login)  # after the limits: features are wired last
    wire_unlimited_routes(app, keys)
    return app


def client(app: FastAPI, host: str = "192.0.2.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(host, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def test_the_middleware_must_be_listed() -> None:
    """Wiring an app without the middleware, which would limit nothing, is refused with its name."""
    with pytest.raises(RuntimeError, match="LimitRates"):
        wire_rate_limits(FastAPI())


async def test_responses_report_the_policy_and_the_remaining_budget() -> None:
    """Both fields follow the draft's syntax of structured fields, on successes and on errors."""
    limiter = FixedWindow()
    async with client(make_app(limiter)) as http:
        answers = [await http.post("/other", json={"email": "a"}), await http.get("/nowhere")]
    assert [answer.status_code for answer in answers] == [200, 404]
    assert [answer.headers["ratelimit-policy"] for answer in answers] == ['"default";q=600;w=60'] * 2
    assert [answer.headers["ratelimit"] for answer in answers] == ['"default";r=599;t=1', '"default";r=598;t=1']
    assert [(policy.lease, key) for policy, key in limiter.hits] == [(20, "192.0.2.1")]


async def test_an_excess_request_is_refused_before_its_body_is_read() -> None:
    """An excess request gets 429 as a problem document with all usual headers, and its body is not read."""
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{}"

    async with client(make_app(FixedWindow(), default="1/7")) as http:
        assert (await http.post("/other", json={"email": "a"})).status_code == 200
        refused = await http.post("/other", content=body(), headers={"origin": OURS})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert not read
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "7"
    assert refused.headers["ratelimit"] == '"default";r=0;t=7'
    assert refused.headers["ratelimit-policy"] == '"default";q=1;w=7'
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert refused.headers["access-control-allow-origin"] == OURS


async def test_retry_after_is_never_zero() -> None:
    """A fraction of a second is rounded up to one."""
    async with client(make_app(FixedWindow(), default="100/1")) as http:
        answers = [await http.get("/nowhere") for _ in range(101)]
    assert (answers[-1].status_code, answers[-1].headers["retry-after"]) == (429, "1")


async def test_a_route_may_have_a_policy_of_its_own() -> None:
    """A route's own policy counts separately, leases nothing, and is reported by name and rate."""
    limiter = FixedWindow()
    async with client(make_app(limiter)) as http:
        logins = [await http.post("/login", json={"email": "a"}) for _ in range(3)]
        other = await http.post("/other", json={"email": "a"})
    assert [answer.status_code for answer in logins] == [200, 200, 429]
    assert logins[0].headers["ratelimit-policy"] == '"login";q=2;w=3'
    assert other.headers["ratelimit"] == '"default";r=599;t=1'
    assert {policy.name: policy.lease for policy, _ in limiter.hits} == {"login": 0, "default": 20}


@pytest.mark.parametrize(
    ("rates", "policies"),
    [
        ({}, ['"login";q=2;w=3', '"default";q=600;w=60']),
        ({"login": "7/8"}, ['"login";q=7;w=8', '"default";q=600;w=60']),
        ({"default": "off"}, ['"login";q=2;w=3', None]),
        ({"login": "off", "default": "5/6"}, [None, '"default";q=5;w=6']),
    ],
)
async def test_settings_change_and_disable_each_policy(rates: dict[str, str], policies: list[str | None]) -> None:
    """Settings can change or disable each policy; a disabled one is neither reported nor counted."""
    async with client(make_app(FixedWindow(), **rates)) as http:
        answers = [await http.post(path, json={"email": "a"}) for path in ("/login", "/other")]
    assert [answer.headers.get("ratelimit-policy") for answer in answers] == policies


async def test_polled_and_exempt_routes_are_never_limited() -> None:
    """Health, readiness, exempt routes and preflight requests are not counted."""
    limiter = FixedWindow()
    preflight = {"origin": OURS, "access-control-request-method": "POST"}
    async with client(make_app(limiter, default="1/60")) as http:
        for path in ("/api/v1/health", "/api/v1/readiness", "/keys"):
            answers = [await http.get(path) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200] * 3
            assert "ratelimit" not in answers[0].headers
        assert (await http.options("/other", headers=preflight)).status_code == 200
    assert not limiter.hits


@pytest.mark.parametrize(
    ("host", "keys"),
    [
        ("192.0.2.1", ["192.0.2.1"]),
        ("::ffff:192.0.2.1", ["192.0.2.1"]),
        ("2001:db8:1:2:3:4:5:6", ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
        ("2001:db8:1:2::", ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
        ("2001:db8:1:1ff::", ["2001:db8:1:1ff::/64", "2001:db8:1:100::/56", "2001:db8:1::/48"]),
        ("2001:db8:2::1", ["2001:db8:2::/64", "2001:db8:2::/56", "2001:db8:2::/48"]),
        ("fe80::1%eth0", ["fe80::/64", "fe80::/56", "fe80::/48"]),
        ("::1", ["::/64", "::/56", "::/48"]),
        ("", ["unknown"]),
        ("unknown", ["unknown"]),
        ("_hidden", ["unknown"]),
        ("1" * 5000, ["unknown"]),
    ],
)
def test_the_keys_of_client_addresses(host: str, keys: list[str]) -> None:
    """IPv6 counts by /64, /56 and /48, an IPv4-mapped address as IPv4, and all unparsable addresses together."""
    assert list(client_keys(host)) == keys


async def statuses(app: FastAPI, hosts: Sequence[str]) -> list[int]:
    """Return the status of one login from each of these addresses."""
    found = []
    for host in hosts:
        async with client(app, host) as http:
            found.append((await http.post("/login", json={"email": "a"})).status_code)
    return found


@pytest.mark.parametrize(
    ("networks", "passing", "name", "quota"),
    [
        ([f"2001:db8:1:{number:x}::1" for number in range(200)], 16, "login-56", 16),
        ([f"2001:db8:1:{number:x}00::1" for number in range(200)], 64, "login-48", 64),
        ([f"2001:db8:{number:x}::1" for number in range(200)], 200, "login", 2),
        ([f"2001:db8::{number:x}" for number in range(200)], 2, "login", 2),
    ],
    ids=["of one /56", "of one /48", "of many /48", "of one /64"],
)
async def test_wider_networks_have_wider_budgets(networks: list[str], passing: int, name: str, quota: int) -> None:
    """A /56 has 8 times the budget of a /64, a /48 has 32 times; the fields name the budget that refuses."""
    limiter = FixedWindow()
    app = make_app(limiter)
    assert await statuses(app, networks) == [200] * passing + [429] * (200 - passing)
    async with client(app, networks[-1]) as http:
        answer = await http.post("/login", json={"email": "a"})
    assert answer.headers["ratelimit-policy"] == f'"{name}";q={quota};w=3'
    # Another /48 has a budget of its own.
    assert await statuses(app, ["2001:db8:ffff::1", "192.0.2.1"]) == [200, 200]


async def test_a_refused_request_uses_up_no_budget() -> None:
    """A /64 over its own limit uses up nothing of the budgets of its /56 and /48."""
    limiter = FixedWindow()
    app = make_app(limiter)
    assert await statuses(app, ["2001:db8::1"] * 100) == [200] * 2 + [429] * 98
    assert await statuses(app, [f"2001:db8:0:{number:x}::1" for number in range(1, 15)]) == [200] * 14


async def test_each_client_has_a_budget_of_its_own() -> None:
    """A refused client uses up nothing of the budgets of others."""
    app = make_app(FixedWindow(), default="1/60")
    statuses = []
    for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
        async with client(app, host) as http:
            statuses.append((await http.get("/nowhere")).status_code)
    assert statuses == [404, 429, 404, 404, 429]


async def test_openapi_documents_rate_limits() -> None:
    """Every limited operation declares the response 429 in OpenAPI, and no other does."""
    paths = make_app(FixedWindow()).openapi()["paths"]
    documented = {
        path for path, operations in paths.items() for each in operations.values() if "429" in each["responses"]
    }
    assert documented == {"/login", "/other"}
    schema = paths["/login"]["post"]["responses"]["429"]["content"]["application/problem+json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/RateLimitedProblem"}
