"""The API's settings: one section for each part it is composed of."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, model_validator

from tequipy_auth.api import RATE_POLICIES
from tequipy_auth.wiring import AuthSettings
from tequipy_caching import RatePolicy
from tequipy_caching.wiring import CacheSettings, LimiterSettings
from tequipy_observability.wiring import ObservabilitySettings
from tequipy_platform.api import WIDER_NETWORKS
from tequipy_platform.wiring import AppSettings, DatabaseSettings, HeaderSettings, RateLimitSettings, StorageSettings

WIDEST_PROXY_NETWORKS: Final = {4: 8, 6: 16}
"""The shortest prefix of a public network of proxies, by IP version: one that is wider holds strangers."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""All IPv4 addresses, as a socket for both versions writes them (RFC 4291, section 2.5.5.2)."""


class ServerSettings(BaseModel):
    """How the server of `tequipy-api serve` treats connections; times in seconds, sizes in bytes.

    Another ASGI server that is given `tequipy_api.main:app` knows none of this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    drain_period: float = Field(default=5, ge=0)
    """From SIGTERM to the end of listening: longer than balancers need to notice that readiness is 503."""
    shutdown_timeout: int = Field(default=25, ge=0)
    """What requests in flight then have to finish, before they are cut off with 503."""
    keep_alive_timeout: int = Field(default=75, ge=1)
    """How long an idle connection stays open: longer than balancers keep theirs (60 is usual), so that they close it
    and no request meets a closing connection."""
    max_connections: int | None = Field(default=None, ge=1)
    """None: as many as the process may open files (`ulimit -n`) beside those it needs itself, at most 4,096. Beyond it
    the connection that has kept the server waiting longest is closed; when all are being served, new ones get 503."""
    max_head_size: int = Field(default=32 * 1024, ge=1024, le=1024 * 1024)
    """Request line and header fields together, and by themselves the trailer fields of a chunked body; beyond: 431."""
    head_timeout: float = Field(default=10, gt=0)
    """From the connection, or the first byte of a further request on it, to the end of the head; then 408."""
    body_timeout: float = Field(default=30, gt=0)
    """From the end of the head to the end of the body, without the time in which the app does not read; then 408."""


class RateLimits(RateLimitSettings):
    """The rates of this app's policies: `TEQUIPY_RATE_LIMITS__LOGIN=60/60` (requests/seconds), or `off`."""

    names = frozenset(RATE_POLICIES)

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        for name in self.names | {"default"}:
            if (rate := self.rate(name, "off")) is not None:
                widest = max(times for _, times in WIDER_NETWORKS)
                RatePolicy(name, rate.limit * widest, rate.period)  # says what it cannot count
        return self


class Database(DatabaseSettings):
    """PostgreSQL, and the packages whose schemas may be renamed: `TEQUIPY_DATABASE__SCHEMAS__AUTH=shop_auth`."""

    known_schemas = frozenset({"platform", "auth"})


class ApiSettings(AppSettings):
    """What the API reads from the environment: `TEQUIPY_DATABASE__URL` is `database.url`."""

    database: Database
    cache: CacheSettings
    limiter: LimiterSettings = Field(default_factory=LimiterSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    headers: HeaderSettings = Field(default_factory=HeaderSettings)
    rate_limits: RateLimits = Field(default_factory=RateLimits)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; of anybody else they are ignored."""

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Add to what the sections refuse: debug, and metrics that everybody may read."""
        yield from super().production_faults()
        if self.observability.log_level == "DEBUG":
            yield ("observability", "log_level"), "DEBUG is refused in production: libraries then log what they carry"
        if self.observability.metrics_port is None and self.observability.metrics_token is None:
            yield (
                ("observability", "metrics_token"),
                "is required, or OBSERVABILITY__METRICS_PORT: /metrics is open otherwise",
            )
        if _hold_strangers(self.trusted_proxies):
            yield (
                ("trusted_proxies",),
                "should be the proxies' own networks in production: anybody in these can forge X-Forwarded-For",
            )


def _hold_strangers(networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Tell whether the networks, taken together, hold addresses that can be no proxy's."""
    by_version: dict[int, list[IPv4Network | IPv6Network]] = {4: [], 6: []}
    for network in networks:
        by_version[network.version].append(network)
    merged = [*collapse_addresses(by_version[4]), *collapse_addresses(by_version[6])]  # type: ignore[type-var]  # -- each list holds one version
    return any(_holds_strangers(network) for network in merged)


def _holds_strangers(network: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv6Network) and network.overlaps(_MAPPED):
        return network.prefixlen < _MAPPED.prefixlen + WIDEST_PROXY_NETWORKS[4]
    return network.prefixlen < WIDEST_PROXY_NETWORKS[network.version] and not network.is_private
