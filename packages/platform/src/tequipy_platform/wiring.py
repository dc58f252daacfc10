"""What the ground needs to be told, and how its parts are built. Only apps fill these settings from the environment."""

from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tequipy_platform.infrastructure.database import Database, DatabaseSettings
from tequipy_platform.infrastructure.ids import uuid7
from tequipy_platform.infrastructure.mail import FolderMailer, MailSettings, SmtpMailer
from tequipy_platform.infrastructure.pending import SqlPendingMessages
from tequipy_platform.infrastructure.settings import (
    KNOWN_NAMES,
    AppSettings,
    Environment,
    ProductionChecked,
    PublicUrl,
    describe_settings,
    load_settings,
    split_url,
)
from tequipy_platform.infrastructure.storage import ObstoreStorage, StorageSettings

__all__ = [
    "KNOWN_NAMES",
    "AppSettings",
    "CelerySettings",
    "Database",
    "DatabaseSettings",
    "Environment",
    "HeaderSettings",
    "MailSettings",
    "ProductionChecked",
    "PublicUrl",
    "StorageSettings",
    "build_database",
    "build_mailer",
    "build_pending_messages",
    "build_storage",
    "describe_settings",
    "load_settings",
    "uuid7",
]


class HeaderSettings(BaseModel):
    """Which other origins' pages may call the API."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cors_origins: tuple[str, ...] = ()
    """Origins as a browser sends them (RFC 6454): `https://app.example.com`, with a port when it is not the usual."""

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            url = urlsplit(origin)
            # `*` fails here too: with credentials it would open every account to every page.
            if url.scheme not in {"http", "https"} or not url.hostname or origin != f"{url.scheme}://{url.netloc}":
                raise PydanticCustomError("origin", "should be origins as https://app.example.com, never *")
        return origins


class CelerySettings(BaseModel):
    """The broker and the four times that only keep their word together; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    broker_url: SecretStr
    """`redis://user:password@host:port/database`, a database apart from the cache's."""
    result_backend: SecretStr | None = None
    soft_time_limit: int = Field(default=270, gt=0)
    """When a task is asked to end: its coroutine is cancelled."""
    time_limit: int = Field(default=300, gt=0)
    """When a task's process is killed."""
    visibility_timeout: int = Field(default=600, gt=0)
    """When a message that nobody acknowledged is delivered again."""
    soft_shutdown_timeout: int = Field(default=20, ge=0)
    """How long a stopping worker waits for its tasks before it hands them back."""

    @field_validator("broker_url", "result_backend")
    @classmethod
    def _check_url(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and split_url(secret).scheme not in {"redis", "rediss"}:
            raise PydanticCustomError("url_scheme", "URL scheme should be redis or rediss")
        return secret

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if not self.soft_time_limit < self.time_limit < self.visibility_timeout:
            raise PydanticCustomError("times", "should keep soft_time_limit < time_limit < visibility_timeout")
        return self


def build_database(settings: DatabaseSettings, *, registry: CollectorRegistry | None = None) -> Database:
    """Return the database, its `db_pool_*` gauges in `registry`; nothing is opened before the first use."""
    return Database(settings, registry=registry)


def build_pending_messages(database: Database, *, redelivery: timedelta) -> SqlPendingMessages:
    """Return the outbox as the relay reads it; a message that is not settled within `redelivery` is published again."""
    return SqlPendingMessages(database, redelivery=redelivery)


def build_storage(settings: StorageSettings) -> ObstoreStorage:
    """Return the object storage that the URL names."""
    return ObstoreStorage(settings)


def build_mailer(settings: MailSettings) -> SmtpMailer | FolderMailer:
    """Return a mailer that sends by SMTP, or one that writes to the folder when there is no server."""
    return SmtpMailer(settings) if settings.smtp_url else FolderMailer(settings)
