"""Settings of the worker, with one section for each part."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from tequipy_auth import CACHE_POLICIES
from tequipy_auth.wiring import SCHEMA as AUTH_SCHEMA
from tequipy_auth.wiring import AuthSettings
from tequipy_caching.wiring import CacheSettings
from tequipy_observability.wiring import ObservabilitySettings
from tequipy_platform.database import DatabaseSettings
from tequipy_platform.http import HttpSettings
from tequipy_platform.mail import MailSettings
from tequipy_platform.messaging import SCHEMA as PLATFORM_SCHEMA
from tequipy_platform.messaging.celery import CelerySettings
from tequipy_platform.settings import AppSettings, Environment, PublicUrl
from tequipy_platform.storage import StorageSettings
from tequipy_reporting.wiring import SCHEMA as REPORTING_SCHEMA
from tequipy_reporting.wiring import ReportingSettings
from tequipy_worker.state import DEFAULT_NAME


class ProcessSettings(BaseModel):
    """Number and memory of child processes, and the folder of the state of all processes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    concurrency: int = Field(default=2, ge=1)
    """The number of child processes, each of which runs one task at a time."""
    max_memory_per_child: int | None = Field(default=None, ge=1)
    """A child process that has used more MiB than this is replaced after its task; None: none is."""
    state_folder: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()) / DEFAULT_NAME)
    """The folder of heartbeats and metrics, by default `tequipy-worker` in the folder of temporary files; at most one
    process each of `run`, `beat` and `relay` can use it."""


class Cache(CacheSettings):
    """Settings of the cache, with the policies of this app's features."""

    declared = CACHE_POLICIES


class Database(DatabaseSettings):
    """Settings of PostgreSQL; the known schemas may be renamed by `TEQUIPY_DATABASE__SCHEMAS__AUTH=shop_auth`."""

    known_schemas = frozenset({PLATFORM_SCHEMA, AUTH_SCHEMA, REPORTING_SCHEMA})


class WorkerSettings(AppSettings):
    """The settings that the worker reads from the environment: `TEQUIPY_CELERY__BROKER_URL` is `celery.broker_url`."""

    names_of_other_apps = frozenset({"allowed_origins", "docs", "limiter", "rate_limits", "server", "trusted_proxies"})
    renamed: ClassVar[Mapping[str, str]] = {
        "auth__allowed_origins": "allowed_origins",
        "headers": "allowed_origins",
    }
    production_rules: ClassVar[Mapping[str, str]] = {
        **AppSettings.production_rules,
        "celery.broker_url": "should name another Redis database than the cache's",
    }

    database: Database
    cache: Cache
    celery: CelerySettings
    auth: AuthSettings = Field(default_factory=AuthSettings)
    reporting: ReportingSettings = Field(default_factory=ReportingSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
    worker: ProcessSettings = Field(default_factory=ProcessSettings)

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Refuse in addition: a broker in the cache's Redis database."""
        yield from super().production_faults()
        broker, cache = (urlsplit(url.get_secret_value()) for url in (self.celery.broker_url, self.cache.url))
        if broker.scheme.startswith("redis") and _redis_database(broker) == _redis_database(cache):
            yield ("celery", "broker_url"), self.production_rules["celery.broker_url"]


class MailPreviewSettings(AppSettings):
    """The settings of `mail-preview`, which sends nothing: those of mail, and no requirements."""

    names_of_other_apps = frozenset(WorkerSettings.model_fields) | WorkerSettings.names_of_other_apps

    environment: Environment = "local"
    public_url: PublicUrl = "https://app.example.com"
    mail: MailSettings = Field(default_factory=MailSettings)

    def production_faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Require nothing."""
        yield from ()


def _redis_database(parts: SplitResult) -> tuple[str | None, int | None, str]:
    return parts.hostname, parts.port or 6379, parts.path.strip("/") or "0"
