"""The API's settings: one section for each part it is composed of."""

from collections.abc import Iterator

from pydantic import Field, IPvAnyNetwork

from tequipy_auth.wiring import AuthSettings
from tequipy_caching.wiring import CacheSettings
from tequipy_observability.wiring import ObservabilitySettings
from tequipy_platform.wiring import AppSettings, DatabaseSettings, HeaderSettings, StorageSettings


class ApiSettings(AppSettings):
    """What the API reads from the environment: `TEQUIPY_DATABASE__URL` is `database.url`."""

    database: DatabaseSettings
    cache: CacheSettings
    auth: AuthSettings = Field(default_factory=AuthSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    headers: HeaderSettings = Field(default_factory=HeaderSettings)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; of anybody else they are ignored."""

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Add to what the sections refuse: metrics that everybody may read."""
        yield from super().production_faults()
        if self.observability.metrics_port is None and self.observability.metrics_token is None:
            yield (
                ("observability", "metrics_token"),
                "is required, or OBSERVABILITY__METRICS_PORT: /metrics is open otherwise",
            )
