"""Rate limits of the shipped app with its real limiter, as clients see them."""

import json
import re
import time
from collections import Counter

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from redis.asyncio import Redis

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_auth.api import RATE_POLICIES
from tequipy_devstack.servers import ValkeyServer

LOGIN = "/api/v1/auth/login"
PROBLEM = "application/problem+json"


async def send(client: httpx.AsyncClient, path: str, method: str = "POST") -> httpx.Response:
    return await client.request(method, path, json={})


def at(address: str, app: FastAPI) -> httpx.AsyncClient:
    """Return a client with this address."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 5000)), base_url="https://app.example.com"
    )


@pytest.mark.parametrize("name", RATE_POLICIES)
async def test_each_policy_refuses_the_next_one(app: FastAPI, name: str) -> None:
    """The allowed number of requests passes, the next one gets 429 with the wait, and other policies are unaffected."""
    rate, endpoints = RATE_POLICIES[name]
    routes = [
        (str(context.path), min(context.methods or ()))
        for context in iter_route_contexts(app.routes)
        if context.endpoint in endpoints
    ]
    assert len(routes) == len(endpoints)
    limit, period = map(int, rate.split("/"))
    async with at("203.0.113.7", app) as client, at("203.0.113.8", app) as other:
        started, passed = time.monotonic(), 0
        while (refused := await send(client, *routes[passed % len(routes)])).status_code != 429:
            passed += 1
        assert limit <= passed <= limit + (time.monotonic() - started) * limit / period
        print(refused.http_version, refused.status_code, refused.reason_phrase)
        print("\n".join(f"{field}: {value}" for field, value in refused.headers.items()))
        print(refused.text)
        assert (refused.status_code, refused.headers["content-type"]) == (429, PROBLEM)
        assert refused.json()["code"] == "rate_limited"
        wait = int(refused.headers["retry-after"])
        assert 1 <= wait <= period / limit + 1
        assert refused.headers["ratelimit-policy"] == f'"{name}";q={limit};w={period}'
        assert refused.headers["ratelimit"] == f'"{name}";r=0;t={wait}'
        assert (await send(other, *routes[0])).status_code != 429
        assert (await client.get("/api/v1/auth/me")).status_code == 401


async def test_every_other_route_shares_the_default(app: FastAPI) -> None:
    """All other routes share 600 requests a minute; polled routes are not limited and have no such fields."""
    async with at("2001:db8::1", app) as client, at("2001:db8::2", app) as neighbour:
        answers = [await client.get(path) for path in ("/api/v1/auth/me", "/nowhere")]
        assert [answer.headers["ratelimit-policy"] for answer in answers] == ['"default";q=600;w=60'] * 2
        assert answers[1].headers["ratelimit"].startswith('"default";r=598;')
        while (refused := await neighbour.get("/api/v1/auth/me")).status_code != 429:
            assert refused.status_code == 401
        for path in ("/api/v1/health", "/api/v1/readiness", "/metrics", "/.well-known/jwks.json"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers


async def test_decisions_are_counted(app: FastAPI) -> None:
    """`/metrics` shows allowed and refused requests by policy."""
    async with at("203.0.113.7", app) as client:
        for _ in range(3):
            await send(client, LOGIN)
        text = (await client.get("/metrics")).text
    assert 'ratelimit_decisions_total{degraded="false",outcome="allowed",policy="login"} 3.0' in text


async def test_the_default_leases_and_the_tight_ones_do_not(settings: ApiSettings, private_redis: ValkeyServer) -> None:
    """Ordinary requests cost under 0.1 Redis commands each, while each login attempt is counted in Redis."""
    url = private_redis.url()  # a private server, because commands are counted per server
    app = create_app(ApiSettings.model_validate(settings.model_dump() | {"cache": {"url": url}}))
    async with (
        app.router.lifespan_context(app),
        at("203.0.113.7", app) as client,
        Redis.from_url(url) as redis,
    ):

        async def calls(ask: str, number: int) -> float:
            async def scripts() -> int:
                stats = await redis.info("commandstats")
                return sum(stats[name]["calls"] for name in ("cmdstat_evalsha",) if name in stats)

            await client.request("GET" if ask == "/me" else "POST", f"/api/v1/auth{ask}", json={})
            before = await scripts()
            for _ in range(number):
                await client.request("GET" if ask == "/me" else "POST", f"/api/v1/auth{ask}", json={})
            return (await scripts() - before) / number

        ordinary, login = await calls("/me", 200), await calls("/login", 20)
    print(f"scripts run for a request: {ordinary:.3f} by default, {login:.3f} by login")
    assert ordinary < 0.1
    assert login >= 1


async def test_a_setting_can_disable_a_limit(settings: ApiSettings) -> None:
    """`off` disables a limit, and the route then sends no rate limit fields."""
    changed = settings.model_dump() | {"rate_limits": {"login": "off", "register": "1/60"}}
    app = create_app(ApiSettings.model_validate(changed))
    async with app.router.lifespan_context(app), at("203.0.113.7", app) as client:
        for _ in range(70):
            answer = await send(client, LOGIN)
            assert (answer.status_code, "ratelimit" in answer.headers) == (422, False)
        assert [(await send(client, "/api/v1/auth/register")).status_code for _ in range(2)] == [422, 429]


def test_every_route_that_hashes_a_password_has_a_policy(app: FastAPI) -> None:
    """A route that hashes a password has its own policy, because hashing takes a quarter of a second."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    limited = {endpoint for _, endpoints in RATE_POLICIES.values() for endpoint in endpoints}
    hashing, bare = [], []
    for context in iter_route_contexts(app.routes):
        for method in context.methods or ():
            operation = document["paths"].get(context.path_format, {}).get(method.lower(), {})
            for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(operation.get("requestBody", {}))):
                if any("password" in field for field in schemas[name]["properties"]):
                    hashing.append(f"{method} {context.path}")
                    bare += [] if context.endpoint in limited else hashing[-1:]
    print(f"{len(hashing)} routes take a password: {', '.join(hashing)}")
    assert len(hashing) >= 5
    assert bare == []


async def test_many_networks_of_one_customer_share_a_budget(app: FastAPI) -> None:
    """Any number of /64 in one /56 share 8 times the budget of a client, and the rest of the /48 is unaffected."""
    statuses, policy = Counter[int](), ""
    started = time.monotonic()
    for number in range(600):
        async with at(f"2001:db8:7:{number % 256:x}::1", app) as client:
            answer = await send(client, LOGIN)
            statuses[answer.status_code] += 1
            policy = answer.headers["ratelimit-policy"]
    refilled = (time.monotonic() - started) * 8
    print(f"600 attempts from the 256 /64 of one /56: {dict(statuses)}; the last {policy}")
    assert 480 <= statuses[422] <= 480 + refilled
    assert policy == '"login-56";q=480;w=60'
    for neighbour in ("2001:db8:7:100::1", "2001:db8:8::1", "203.0.113.7"):
        async with at(neighbour, app) as client:
            assert (await send(client, LOGIN)).status_code == 422
