"""Settings of the API, with one section for each part."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork

from tequipy_auth import CACHE_POLICIES
from tequipy_auth.api import RATE_POLICIES
from tequipy_auth.wiring import SCHEMA as AUTH_SCHEMA
from tequipy_auth.wiring import AuthSettings
from tequipy_caching.api import RateLimitSettings, declared_rates
from tequipy_caching.wiring import CacheSettings, LimiterSettings
from tequipy_observability.wiring import ObservabilitySettings
from tequipy_platform.database import DatabaseSettings
from tequipy_platform.http import HttpSettings
from tequipy_platform.messaging import SCHEMA as PLATFORM_SCHEMA
from tequipy_platform.settings import AppSettings, Origins, origin_of
from tequipy_platform.storage import StorageSettings
from tequipy_reporting.wiring import SCHEMA as REPORTING_SCHEMA
from tequipy_reporting.wiring import ReportingSettings

WIDEST_PROXY_NETWORKS: Final = {4: 8, 6: 16}
"""The shortest allowed prefix of a public network of proxies, by IP version; wider ones contain other hosts."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""All IPv4 addresses as a dual-stack socket shows them (RFC 4291, section 2.5.5.2)."""


class ServerSettings(BaseModel):
    """Limits of the connections of `tequipy-api serve`; times in seconds, sizes in bytes.

    Other ASGI servers that run `tequipy_api.main:app` do not use them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    drain_period: float = Field(default=5, ge=0)
    """Seconds from SIGTERM to the close of the listener; must exceed the time in which balancers notice readiness
    503."""
    shutdown_timeout: int = Field(default=25, ge=0)
    """Seconds in which requests in progress must finish afterwards, before they get 503."""
    keep_alive_timeout: int = Field(default=75, ge=1)
    """Seconds that an idle connection stays open; must exceed the keep-alive of balancers (usually 60), so that they
    close connections first and send no request on a closing one."""
    max_connections: int | None = Field(default=None, ge=1)
    """The number of connections. None: the number of files that the process may open (`ulimit -n`) minus those it needs
    itself, at most 4,096. Over the limit, the connection that has waited longest is closed; if all are being served, a
    new one gets 503."""
    max_head_size: int = Field(default=32 * 1024, ge=1024, le=1024 * 1024)
    """The limit in bytes of request line and header fields together, and of the trailer fields of a chunked body;
    beyond it 431."""
    head_timeout: float = Field(default=10, gt=0)
    """Seconds from the connection, or the first byte of a further request, to the end of the head; then 408."""
    body_timeout: float = Field(default=30, gt=0)
    """Seconds from the end of the head to the end of the body, not counting pauses of the app; then 408."""


class RateLimits(RateLimitSettings):
    """The rates of this app's policies: `TEQUIPY_RATE_LIMITS__LOGIN=60/60` (requests/seconds), or `off`."""

    names = declared_rates(RATE_POLICIES)


class Cache(CacheSettings):
    """Settings of the cache, with the policies of this app's features."""

    declared = CACHE_POLICIES


class Database(DatabaseSettings):
    """Settings of PostgreSQL; the known schemas may be renamed by `TEQUIPY_DATABASE__SCHEMAS__AUTH=shop_auth`."""

    known_schemas = frozenset({PLATFORM_SCHEMA, AUTH_SCHEMA, REPORTING_SCHEMA})


class ApiSettings(AppSettings):
    """The settings that the API reads from the environment: `TEQUIPY_DATABASE__URL` is `database.url`."""

    names_of_other_apps = frozenset({"celery", "mail", "worker"})
    renamed: ClassVar[Mapping[str, str]] = {
        "auth__allowed_origins": "allowed_origins",
        "headers": "allowed_origins",
    }
    production_rules: ClassVar[Mapping[str, str]] = {
        **AppSettings.production_rules,
        "allowed_origins": "should be https:// origins alone in production",
        "observability.metrics_token": "is required, or OBSERVABILITY__METRICS_PORT: /metrics is open otherwise",
        "trusted_proxies": (
            "should be the proxies' own networks in production: anybody in these can forge X-Forwarded-For"
        ),
    }

    database: Database
    cache: Cache
    limiter: LimiterSettings = Field(default_factory=LimiterSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    reporting: ReportingSettings = Field(default_factory=ReportingSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    rate_limits: RateLimits = Field(default_factory=RateLimits)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    docs: bool = True
    """Whether `/docs`, `/redoc` and `/openapi.json` are served; they show every route, and no data."""
    allowed_origins: Origins = ()
    """Origins whose pages may call the API with credentials (CORS) and use the refresh cookie (CSRF), beside that of
    the public URL: `["https://app.example.com"]`, with a port if it is not the usual one. `local` also allows the
    address asked."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are used; from other clients they are not."""

    @property
    def origins(self) -> frozenset[str]:
        """Return all origins whose pages may call the API with credentials."""
        return frozenset({origin_of(self.public_url), *self.allowed_origins})

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Refuse in addition: origins without TLS, metrics without protection, and proxy networks that are too wide."""
        yield from super().production_faults()
        if any(not origin.startswith("https://") for origin in self.allowed_origins):
            yield ("allowed_origins",), self.production_rules["allowed_origins"]
        if self.observability.metrics_port is None and self.observability.metrics_token is None:
            yield ("observability", "metrics_token"), self.production_rules["observability.metrics_token"]
        if _contain_other_hosts(self.trusted_proxies):
            yield ("trusted_proxies",), self.production_rules["trusted_proxies"]


def _contain_other_hosts(networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether the networks together are so wide that they contain hosts which are not proxies."""
    by_version: dict[int, list[IPv4Network | IPv6Network]] = {4: [], 6: []}
    for network in networks:
        by_version[network.version].append(network)
    merged = [*collapse_addresses(by_version[4]), *collapse_addresses(by_version[6])]  # type: ignore[type-var]  # -- each list holds one version
    return any(_contains_other_hosts(network) for network in merged)


def _contains_other_hosts(network: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv6Network) and network.overlaps(_MAPPED):
        return network.prefixlen < _MAPPED.prefixlen + WIDEST_PROXY_NETWORKS[4]
    return network.prefixlen < WIDEST_PROXY_NETWORKS[network.version] and not network.is_private
