"""Rate limits over HTTP: a policy per route, response fields that report it, and refusal before a body is read.

Needs the extra `api`.
"""

import math
import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from tequipy_caching.rate_limit.policies import RateDecision, RateLimiter, RatePolicy
from tequipy_observability import needs_extra

with needs_extra("tequipy-caching[api]"):
    from fastapi import FastAPI
    from fastapi.routing import iter_route_contexts
    from starlette.responses import Response

    from tequipy_observability.api import Exchange, Head, HeaderField, Stage, polled_endpoints, require_stages
    from tequipy_platform import TooMany
    from tequipy_platform.web import (
        RATE_LIMIT_HEADER,
        RATE_LIMIT_POLICY_HEADER,
        document_header,
        document_problems,
        extend_openapi,
        problem_response,
    )

__all__ = [
    "LimitRates",
    "Rate",
    "RateLimitSettings",
    "declared_rates",
    "wire_rate_limits",
    "wire_rate_policy",
    "wire_unlimited_routes",
]

DEFAULT: Final = "default"
"""The policy of every route without a policy of its own."""

WIDER_NETWORKS: Final = ((56, 8), (48, 32))
"""Prefix lengths under which an IPv6 client is counted besides its /64, and the multiple of the budget for each: one
customer often has a whole /56 or /48, which contains 256 or 65,536 networks of /64."""

_LEASE_DIVISOR: Final = 30
"""A process leases the default policy's limit divided by this, so that few requests ask Redis."""

_LIMIT_FIELD: Final = RATE_LIMIT_HEADER.lower().encode()
_POLICY_FIELD: Final = RATE_LIMIT_POLICY_HEADER.lower().encode()

_FIELDS: Final = {
    RATE_LIMIT_POLICY_HEADER: 'The policy of the route, as `"default";q=600;w=60`: requests, and seconds '
    "(draft-ietf-httpapi-ratelimit-headers-11). Missing while the limit is off.",
    RATE_LIMIT_HEADER: 'What is left of it, as `"default";r=599;t=1`: requests, and seconds until it is reset.',
}
"""The header fields of limited routes in OpenAPI."""

_COUNT: Final = r"[1-9][0-9]{0,4}"


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of requests per number of whole seconds, both at least 1."""

    limit: int
    period: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a rate such as `600/60`; return None for `off`; raise `ValueError` for anything else."""
        if text == "off":
            return None
        limit, _, period = text.partition("/")
        if not (re.fullmatch(_COUNT, limit) and re.fullmatch(_COUNT, period)):
            raise PydanticCustomError("rate", "should be requests/seconds as 600/60, or off")
        return cls(int(limit), int(period))


def _check_rate(text: str) -> str:
    if (rate := Rate.parse(text)) is not None:
        try:
            RatePolicy(DEFAULT, rate.limit * max(times for _, times in WIDER_NETWORKS), rate.period)
        except ValueError as error:
            raise PydanticCustomError("rate", "should be a rate that can be counted exactly, as 600/60") from error
    return text


RateText = Annotated[str, AfterValidator(_check_rate)]
"""A rate such as `600/60` (requests/seconds), or `off` for no limit."""


class RateLimitSettings(BaseModel):
    """Rates by the name of their policy; a policy without an entry keeps the default that its feature declares.

    An app subclasses it and declares the `names` beside `default` (`declared_rates`), because only the app knows all
    its features.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)
    __pydantic_extra__: dict[str, RateText] = Field(init=False)  # which is what type checkers need

    names: ClassVar[Mapping[str, FieldInfo]] = {}

    default: RateText = "600/60"
    """The rate of each client address on every route that has no policy of its own: requests/seconds, each a whole
    number from 1 to 99999, or `off`."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: object) -> object:
        unknown = sorted(set(data) - {*cls.names, "default"}) if isinstance(data, dict) else []
        if unknown:
            faults = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=None) for name in unknown]
            raise ValidationError.from_exception_data(cls.__name__, faults, hide_input=True)
        return data

    def rate(self, name: str, default: str) -> Rate | None:
        """Return the rate of a policy (`default` if the settings have none), or None when the limit is off."""
        return Rate.parse((self.__pydantic_extra__ or {}).get(name, default))


def declared_rates(policies: Mapping[str, tuple[str, Sequence[object]]]) -> Mapping[str, FieldInfo]:
    """Return the `names` of an app's `RateLimitSettings`, from the default rate and the endpoints of each policy."""
    return {
        name: FieldInfo.from_annotated_attribute(
            RateText, Field(default=rate, description=_meaning([getattr(each, "__name__", "") for each in endpoints]))
        )
        for name, (rate, endpoints) in policies.items()
    }


def _meaning(operations: Sequence[str]) -> str:
    together = " together" if len(operations) > 1 else ""
    names = ", ".join(f"`{name}`" for name in operations)
    return f"The rate of each client address for {names}{together}: requests/seconds, or `off`."


@dataclass(frozen=True, slots=True)
class _Limit:
    """The budgets of one policy: for a client's own address, and for the wider IPv6 networks that contain it."""

    policies: Sequence[RatePolicy]
    policy_fields: Mapping[str, HeaderField]
    """`RateLimit-Policy` by the name of the policy that it describes."""


def wire_rate_limits(app: FastAPI) -> None:
    """Add the refusal of `LimitRates`, which must be in the app's pipeline, to the OpenAPI document of `app`."""
    require_stages(app, LimitRates)

    def add_refusals(document: dict[str, Any]) -> None:
        unlimited = polled_endpoints(app) | {endpoint for endpoint, policy in rate_policies(app).items() if not policy}
        for context in iter_route_contexts(app.routes):
            if context.endpoint not in unlimited:
                operations = document["paths"].get(context.path_format, {})
                for method in (context.methods or set()) & {method.upper() for method in operations}:
                    _document_limit(document, operations[method.lower()])

    extend_openapi(app, add_refusals)


def _document_limit(document: dict[str, Any], operation: dict[str, Any]) -> None:
    document_problems(operation, TooMany)
    for response in operation["responses"].values():
        for name, description in _FIELDS.items():
            document_header(document, response, name, {"description": description, "schema": {"type": "string"}})


def wire_rate_policy(app: FastAPI, name: str, rate: str, *endpoints: object) -> None:
    """Count the routes of these endpoints under a shared policy of their own instead of the default.

    `rate` is its default, such as `60/60` (requests/seconds); the entry `name` of `RateLimitSettings` overrides it. Has
    no effect without `LimitRates` in the app's pipeline.
    """
    rate_policies(app).update(dict.fromkeys(endpoints, (name, rate)))


def wire_unlimited_routes(app: FastAPI, *endpoints: object) -> None:
    """Exempt the routes of these endpoints from rate limits, like those of `wire_polled_routes`."""
    rate_policies(app).update(dict.fromkeys(endpoints))


def rate_policies(app: FastAPI) -> dict[object, tuple[str, str] | None]:
    """Return name and default rate of each endpoint's policy; None for endpoints without limit."""
    if not hasattr(app.state, "rate_policies"):
        app.state.rate_policies = {}
    policies: dict[object, tuple[str, str] | None] = app.state.rate_policies
    return policies


class LimitRates(Stage):
    """Limits each client on all routes, except those of `wire_polled_routes` and `wire_unlimited_routes`.

    The limit is 600 requests a minute, unless the settings or `wire_rate_policy` say otherwise. Responses carry
    `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11); an excess request gets 429
    `rate_limited` with `Retry-After`. An IPv6 client is counted by its /64, and by its /56 and /48 with 8 and 32 times
    the budget; the fields report the budget that refused, or the one with the least remaining.

    List it inside of (after) headers and outside of (before) `LimitBodies`, so that a request is refused before its
    body is read.
    """

    def __init__(self, limiter: RateLimiter, settings: RateLimitSettings) -> None:
        self._limiter = limiter
        self._settings = settings
        self._default = self._limit(DEFAULT, settings.default)
        self._app: FastAPI | None = None
        self._limit_of_endpoint: Mapping[object, _Limit | None] = {}

    def _limit(self, name: str, default: str) -> _Limit | None:
        """Return the budgets of a policy, or None when the limit is off."""
        rate = self._settings.rate(name, default)
        if rate is None:
            return None
        limits = {name: rate.limit} | {f"{name}-{bits}": rate.limit * times for bits, times in WIDER_NETWORKS}
        leases = {each: limit // _LEASE_DIVISOR if name == DEFAULT else 0 for each, limit in limits.items()}
        return _Limit(
            [RatePolicy(each, limit, rate.period, lease=leases[each]) for each, limit in limits.items()],
            {each: (_POLICY_FIELD, f'"{each}";q={limit};w={rate.period}'.encode()) for each, limit in limits.items()},
        )

    def _limits_of(self, app: FastAPI) -> Mapping[object, _Limit | None]:
        """Return the limit of each endpoint; read at the first request, after all features have been wired."""
        if app is not self._app:
            named = rate_policies(app)
            limits = {name: self._limit(name, default) for name, default in filter(None, named.values())}
            own = {endpoint: limits[policy[0]] if policy else None for endpoint, policy in named.items()}
            self._app, self._limit_of_endpoint = app, own | dict.fromkeys(polled_endpoints(app))
        return self._limit_of_endpoint

    def before(self, exchange: Exchange) -> Awaitable[Response | None] | None:
        """Count the request, if its route has a limit."""
        limit = self._limits_of(exchange.app).get(exchange.route.endpoint, self._default)
        if limit is None:
            return None
        client = exchange.scope.get("client")
        keys = client_keys(client[0] if client else "")
        # Not strict, because an IPv4 client has one key and a limit has three policies.
        hits = [*zip(limit.policies, keys, strict=False)]
        counted = self._limiter.try_hit_all(hits)
        if counted is not None:  # the usual case, without a coroutine
            self._keep(exchange, limit, *counted)
            return None
        return self._count(exchange, limit, hits)

    async def _count(
        self, exchange: Exchange, limit: _Limit, hits: Sequence[tuple[RatePolicy, str]]
    ) -> Response | None:
        policy, decision = await self._limiter.hit_all(hits)
        seconds = self._keep(exchange, limit, policy, decision)
        return None if decision.allowed else problem_response(TooMany(retry_after=seconds))

    def _keep(self, exchange: Exchange, limit: _Limit, policy: RatePolicy, decision: RateDecision) -> int:
        """Keep the fields of the response; return the seconds that they name."""
        # For a refusal `Retry-After` and `RateLimit` must name the same time (section 6 of the draft).
        seconds = max(1, math.ceil(decision.reset_after if decision.allowed else decision.retry_after))
        field = f'"{policy.name}";r={decision.remaining};t={seconds}'
        exchange.kept[self] = limit.policy_fields[policy.name], (_LIMIT_FIELD, field.encode())
        return seconds

    def head(self, exchange: Exchange, head: Head) -> None:
        """Report the budget of a counted request, whether it passed or was refused."""
        for field in exchange.kept.get(self, ()):
            head.set(field)


@lru_cache(maxsize=10_000)
def client_keys(host: str) -> tuple[str, ...]:
    """Return the keys of a client: the /64, /56 and /48 of an IPv6 address, or the IPv4 address in its usual form.

    All clients whose address cannot be parsed, as behind some proxies, share one key.
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
