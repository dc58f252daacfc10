"""Settings of platform, and the functions that build its parts. Only apps read these settings from the environment."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tequipy_platform.infrastructure.database import Database, DatabaseSettings
from tequipy_platform.infrastructure.database.encoding import WrongEncoding
from tequipy_platform.infrastructure.ids import uuid7
from tequipy_platform.infrastructure.mail import FolderMailer, MailSettings, SmtpMailer
from tequipy_platform.infrastructure.redis_url import INSECURE, parse_redis_url
from tequipy_platform.infrastructure.secret_checks import BUILT_IN, HoldsSecrets, is_guessable
from tequipy_platform.infrastructure.settings import (
    AppSettings,
    Environment,
    ProductionChecked,
    PublicUrl,
    describe_settings,
    load_settings,
    refuse,
    refuse_missing_folder,
)
from tequipy_platform.infrastructure.storage import ObstoreStorage, StorageSettings
from tequipy_platform.infrastructure.unknown_names import KNOWN_NAMES
from tequipy_platform.infrastructure.unpublished import SqlUnpublishedMessages

__all__ = [
    "BUILT_IN",
    "KNOWN_NAMES",
    "AppSettings",
    "CelerySettings",
    "Database",
    "DatabaseSettings",
    "Environment",
    "HeaderSettings",
    "HoldsSecrets",
    "MailSettings",
    "ProductionChecked",
    "PublicUrl",
    "StorageSettings",
    "build_database",
    "build_mailer",
    "build_storage",
    "build_unpublished_messages",
    "describe_settings",
    "is_guessable",
    "load_settings",
    "refuse",
    "refuse_missing_folder",
    "refuse_wrong_encoding",
    "uuid7",
]

_START_SECONDS: Final = 5.0


class HeaderSettings(BaseModel):
    """The origins whose pages may call the API."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cors_origins: tuple[str, ...] = ()
    """Origins in the form that browsers send (RFC 6454): `https://app.example.com`, with a port if it is not 443."""

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            url = urlsplit(origin)
            # `*` is refused too: with credentials it would give every page access to every account.
            if url.scheme not in {"http", "https"} or not url.hostname or origin != f"{url.scheme}://{url.netloc}":
                raise PydanticCustomError("origin", "should be origins as https://app.example.com, never *")
        return origins

    def production_faults(self) -> list[tuple[str, str]]:
        """Refuse `http` origins in production: an attacker on the network can change their pages."""
        plain = any(not origin.startswith("https://") for origin in self.cors_origins)
        return [("cors_origins", "should be https:// origins alone in production")] if plain else []


class CelerySettings(BaseModel):
    """The broker, and four times that depend on each other, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    broker_url: SecretStr
    """`redis://user:password@host:port/database`; use another database than the cache. `rediss://` verifies
    certificate and host name, and accepts the options `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (PEM files),
    `ssl_check_hostname=false` and `ssl_cert_reqs=none`."""
    result_backend: SecretStr | None = None
    """A URL of the same form; None: results are not kept."""
    soft_time_limit: int = Field(default=270, gt=0)
    """After this time a task's coroutine is cancelled."""
    time_limit: int = Field(default=300, gt=0)
    """After this time a task's process is killed."""
    visibility_timeout: int = Field(default=600, gt=0)
    """After this time a message that was not acknowledged is delivered again."""
    soft_shutdown_timeout: int = Field(default=20, ge=0)
    """How long a stopping worker waits for its tasks before it returns them to the queue."""

    @property
    def broker_tls(self) -> Mapping[str, Any] | None:
        """TLS options of the broker as arguments of redis-py's `SSLConnection`; None: not encrypted."""
        return parse_redis_url(self.broker_url.get_secret_value()).tls

    @property
    def result_tls(self) -> Mapping[str, Any] | None:
        """TLS options of the result backend, in the same form."""
        return parse_redis_url(self.result_backend.get_secret_value()).tls if self.result_backend else None

    def production_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the URLs that production refuses because they do not verify the server."""
        for name, url in (("broker_url", self.broker_url), ("result_backend", self.result_backend)):
            if url is not None and not parse_redis_url(url.get_secret_value()).verified:
                yield name, INSECURE

    @field_validator("broker_url", "result_backend")
    @classmethod
    def _check_url(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            parse_redis_url(secret.get_secret_value())
        return secret

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if not self.soft_time_limit < self.time_limit < self.visibility_timeout:
            raise PydanticCustomError("times", "should keep soft_time_limit < time_limit < visibility_timeout")
        return self


def build_database(settings: DatabaseSettings, *, registry: CollectorRegistry | None = None) -> Database:
    """Return the database, with `db_pool_*` gauges in `registry`; it connects at first use."""
    return Database(settings, registry=registry)


def refuse_wrong_encoding(settings: DatabaseSettings) -> None:
    """End the process with status 78 and one line if the database's encoding is not UTF8; runs its own event loop.

    A database that does not answer within 5 s is left to the readiness check.
    """
    fault = asyncio.run(_encoding_fault(settings))
    if fault is not None:
        refuse([f"TEQUIPY_DATABASE__URL: {fault}"])


async def _encoding_fault(settings: DatabaseSettings) -> str | None:
    async with build_database(settings) as database:
        ping = asyncio.create_task(database.ping())
        await asyncio.wait({ping}, timeout=_START_SECONDS)
        error = ping.exception() if ping.done() else None
        ping.cancel()
        return str(error) if isinstance(error, WrongEncoding) else None


def build_unpublished_messages(
    database: Database, *, redelivery: timedelta, registry: CollectorRegistry | None = None
) -> SqlUnpublishedMessages:
    """Return the outbox for the relay; a message that is not settled within `redelivery` is published again.

    `registry` gets `outbox_pending`, `outbox_oldest_age_seconds` and `outbox_given_up_total`.
    """
    return SqlUnpublishedMessages(database, redelivery=redelivery, registry=registry)


def build_storage(settings: StorageSettings) -> ObstoreStorage:
    """Return the object storage at the configured URL."""
    return ObstoreStorage(settings)


def build_mailer(settings: MailSettings, *, registry: CollectorRegistry | None = None) -> SmtpMailer | FolderMailer:
    """Return a mailer that sends by SMTP, or one that writes files if no server is configured.

    `registry` gets `mails_total{outcome}` of the mails sent by SMTP.
    """
    return SmtpMailer(settings, registry=registry) if settings.smtp_url else FolderMailer(settings)
