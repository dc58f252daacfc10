"""The worker's settings: one section for each part it is composed of."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from tequipy_auth.wiring import AuthSettings
from tequipy_caching.wiring import CacheSettings
from tequipy_observability.wiring import ObservabilitySettings
from tequipy_platform.wiring import AppSettings, CelerySettings, DatabaseSettings, MailSettings, StorageSettings


class ProcessSettings(BaseModel):
    """How the worker's processes run on their machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    concurrency: int = Field(default=2, ge=1)
    """Child processes, each of which runs one task at a time."""
    state_folder: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()) / "tequipy-worker")
    """Where the heartbeat and the scheduler's memory are kept."""

    @property
    def heartbeat_file(self) -> Path:
        """Touched by the running worker; `tequipy-worker health` looks at its age."""
        return self.state_folder / "heartbeat"


class Database(DatabaseSettings):
    """PostgreSQL, and the packages whose schemas may be renamed: `TEQUIPY_DATABASE__SCHEMAS__AUTH=shop_auth`."""

    known_schemas = frozenset({"platform", "auth"})


class WorkerSettings(AppSettings):
    """What the worker reads from the environment: `TEQUIPY_CELERY__BROKER_URL` is `celery.broker_url`."""

    database: Database
    cache: CacheSettings
    celery: CelerySettings
    auth: AuthSettings = Field(default_factory=AuthSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
    worker: ProcessSettings = Field(default_factory=ProcessSettings)

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Add what the sections cannot see alone."""
        yield from super().production_faults()
        if self.observability.log_level == "DEBUG":
            yield ("observability", "log_level"), "DEBUG is refused in production: libraries then log what they carry"
        if _redis_database(self.celery.broker_url.get_secret_value()) == _redis_database(
            self.cache.url.get_secret_value()
        ):
            yield ("celery", "broker_url"), "should name another Redis database than the cache's"


def _redis_database(url: str) -> tuple[str | None, int | None, str]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 6379, parts.path.strip("/") or "0"
