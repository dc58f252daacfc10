"""How often each client may ask: a policy for each route, told in every answer, enforced before a body is read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Protocol, TypeVar

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import RouteTable, polled_endpoints, route_table
from tequipy_platform.api.problems import problem_response, problem_responses
from tequipy_platform.domain.exceptions import TooMany

DEFAULT: Final = "default"
"""The policy of every route that has no other."""

WIDER_NETWORKS: Final = ((56, 8), (48, 32))
"""Prefix lengths that an IPv6 client counts under beside its /64, and how many times the budget each of them has: a /56
or a /48 is often one customer's, who has 256 or 65,536 times a /64."""

_LEASED_SHARE: Final = 30
"""A process may take this part of the default policy's budget at once, so that few requests ask the store."""

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class Rate(Protocol):
    """So many requests in so many seconds."""

    @property
    def limit(self) -> int:
        """Requests, at least 1."""

    @property
    def period(self) -> int:
        """Whole seconds, at least 1: the fields of an answer know no parts of one."""


class RateLimits(Protocol):
    """What `wire_rate_limits` is told by settings: `tequipy_platform.wiring.RateLimitSettings` is one."""

    @property
    def default(self) -> str:
        """The rate of every route that has no policy of its own, as `600/60`."""

    def rate(self, name: str, default: str) -> Rate | None:
        """Return the rate of a policy, `default` unless the settings name another; None lifts it."""


class Decision(Protocol):
    """What a limiter says of one request; times in seconds."""

    @property
    def allowed(self) -> bool:
        """Whether the request passes."""

    @property
    def remaining(self) -> int:
        """How many more would pass at once."""

    @property
    def retry_after(self) -> float:
        """When one will pass again, 0 if it does now."""

    @property
    def reset_after(self) -> float:
        """When the whole budget will be back."""


class Limiter(Protocol[P]):
    """Counts requests: `tequipy_caching.RateLimiter` is one, for its `RatePolicy`."""

    async def hit_all(self, hits: Sequence[tuple[P, str]]) -> tuple[P, Decision]:
        """Count one request under each policy, all or none, and say whose decision counts; never raises."""


class PolicyType(Protocol[P_co]):
    """Makes a limiter's policies: `tequipy_caching.RatePolicy` does."""

    def __call__(self, name: str, limit: int, period: float, *, lease: int) -> P_co:
        """Return the policy of `limit` requests in `period` seconds, of which a process may take `lease` at once."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """A policy as the limiter and as the answer has it."""

    policy: Any  # of the limiter's type: `wire_rate_limits` sees to it
    name: str
    field: str


_Limit = Sequence[_Budget]
"""The budgets of a policy: for a client's own address, and for the wider IPv6 networks it is in."""


def wire_rate_limits(app: FastAPI, limiter: Limiter[P], settings: RateLimits, policy_type: PolicyType[P]) -> None:
    """Limit each client address on every route of `app` but those of `wire_polled_routes` and `wire_unlimited_routes`.

    600 requests a minute, unless the settings or `wire_rate_policy` say otherwise. Limited answers carry
    `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11); one too many is 429 `rate_limited`
    with `Retry-After`. An IPv6 client counts by its /64, and with 8 and 32 times the budget by its /56 and /48; the
    fields name the budget that refused, or else the one with the least left.

    Wire it inside (after) headers and outside of (before) errors: who asks too often is refused before a body is read.
    """

    def limit(name: str, default: str) -> _Limit | None:
        rate = settings.rate(name, default)
        if rate is None:
            return None
        wider = ((f"{name}-{bits}", rate.limit * times) for bits, times in WIDER_NETWORKS)
        return [budget(*each, rate.period, leased=name == DEFAULT) for each in ((name, rate.limit), *wider)]

    def budget(name: str, limit: int, period: int, *, leased: bool) -> _Budget:
        policy = policy_type(name, limit, period, lease=limit // _LEASED_SHARE if leased else 0)
        return _Budget(policy, name, f'"{name}";q={limit};w={period}')

    def limit_of_endpoint() -> Mapping[object, _Limit | None]:
        named = rate_policies(app)
        limits = {name: limit(name, default) for name, default in filter(None, named.values())}
        own = {endpoint: limits[policy[0]] if policy else None for endpoint, policy in named.items()}
        return own | dict.fromkeys(polled_endpoints(app))

    app.user_middleware.append(
        Middleware(
            LimitRates,
            limiter=limiter,
            routes=route_table(app),
            default=limit(DEFAULT, settings.default),
            limit_of_endpoint=limit_of_endpoint,
        )
    )
    _document(app)


def wire_rate_policy(app: FastAPI, name: str, rate: str, *endpoints: object) -> None:
    """Have the routes of these endpoints count under a policy of their own instead of the default, all under the same.

    `rate` is its default, as `60/60` (requests/seconds); `TEQUIPY_RATE_LIMITS__<NAME>` sets another. Has no effect
    unless `wire_rate_limits` is called too, before or after.
    """
    rate_policies(app).update(dict.fromkeys(endpoints, (name, rate)))


def wire_unlimited_routes(app: FastAPI, *endpoints: object) -> None:
    """Never limit the routes of these endpoints, as those of `wire_polled_routes`."""
    rate_policies(app).update(dict.fromkeys(endpoints))


def rate_policies(app: FastAPI) -> dict[object, tuple[str, str] | None]:
    """Return the name of each endpoint's policy and its default rate, None for those that are never limited."""
    if not hasattr(app.state, "rate_policies"):
        app.state.rate_policies = {}
    policies: dict[object, tuple[str, str] | None] = app.state.rate_policies
    return policies


class LimitRates:
    """Asks the limiter about each request, tells the client what is left, answers 429 when nothing is."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: Limiter[Any],
        routes: RouteTable,
        default: _Limit | None,
        limit_of_endpoint: Callable[[], Mapping[object, _Limit | None]],
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._routes = routes
        self._default = default
        self._limit_of_endpoint = limit_of_endpoint()  # now, when the first request comes: all features have been wired

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        limit = None
        if scope["type"] == "http":
            limit = self._limit_of_endpoint.get(self._routes.match(scope).endpoint, self._default)
        if limit is None:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        keys = client_keys(client[0] if client else "")
        # By the shorter of the two: an IPv4 client has one key.
        policy, decision = await self._limiter.hit_all(
            [(budget.policy, key) for budget, key in zip(limit, keys, strict=False)]
        )
        told = next(budget for budget in limit if budget.policy is policy)
        # Of a refusal both fields name the same moment (section 6 of the draft).
        seconds = max(1, math.ceil(decision.reset_after if decision.allowed else decision.retry_after))
        fields = {"RateLimit-Policy": told.field, "RateLimit": f'"{told.name}";r={decision.remaining};t={seconds}'}
        if not decision.allowed:
            await problem_response(TooMany(retry_after=seconds), headers=fields)(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(fields)
            await send(message)

        await self._app(scope, receive, send_with_fields)


@lru_cache(maxsize=10_000)
def client_keys(host: str) -> tuple[str, ...]:
    """Return what a client address counts under: IPv6 by its /64, /56 and /48; IPv4, however it is written, by itself.

    What is no address, as proxies may say, all counts as one client.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return ("unknown",)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return tuple(
                f"{IPv6Address(int(address) >> (128 - bits) << (128 - bits))}/{bits}"
                for bits in (64, *(bits for bits, _ in WIDER_NETWORKS))
            )
        address = address.ipv4_mapped
    return (str(address),)


def _document(app: FastAPI) -> None:
    """Add the answer 429 to each limited operation of the contract that does not tell of it itself."""
    openapi = app.openapi

    def with_refusals() -> dict[str, Any]:
        document = openapi()
        unlimited = polled_endpoints(app) | {endpoint for endpoint, policy in rate_policies(app).items() if not policy}
        for context in iter_route_contexts(app.routes):
            if context.endpoint not in unlimited:
                operations = document["paths"].get(context.path_format, {})
                for method in (context.methods or set()) & {method.upper() for method in operations}:
                    operations[method.lower()]["responses"].setdefault("429", problem_responses(TooMany)[429])
        return document

    app.openapi = with_refusals  # type: ignore[method-assign]  # -- FastAPI's own way of extending the document
