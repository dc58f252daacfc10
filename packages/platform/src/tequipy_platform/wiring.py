"""What the ground needs to be told, and how its parts are built. Only apps fill these settings from the environment."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from tequipy_platform.infrastructure.database import Database, DatabaseSettings
from tequipy_platform.infrastructure.database.encoding import WrongEncoding
from tequipy_platform.infrastructure.ids import uuid7
from tequipy_platform.infrastructure.mail import FolderMailer, MailSettings, SmtpMailer
from tequipy_platform.infrastructure.pending import SqlPendingMessages
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
    "Rate",
    "RateLimitSettings",
    "StorageSettings",
    "build_database",
    "build_mailer",
    "build_pending_messages",
    "build_storage",
    "describe_settings",
    "is_guessable",
    "load_settings",
    "refuse",
    "refuse_missing_folder",
    "refuse_wrong_encoding",
    "uuid7",
]

_START_SECONDS: Final = 5.0
_COUNT: Final = r"[1-9][0-9]{0,4}"


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

    def production_faults(self) -> list[tuple[str, str]]:
        """Pages that anybody on the way may change call nothing in production."""
        plain = any(not origin.startswith("https://") for origin in self.cors_origins)
        return [("cors_origins", "should be https:// origins alone in production")] if plain else []


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many whole seconds, both at least 1."""

    limit: int
    period: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the rate that `600/60` says, None for `off`; raises `ValueError` for anything else."""
        if text == "off":
            return None
        limit, _, period = text.partition("/")
        if not (re.fullmatch(_COUNT, limit) and re.fullmatch(_COUNT, period)):
            raise PydanticCustomError("rate", "should be requests/seconds as 600/60, or off")
        return cls(int(limit), int(period))


def _check_rate(text: str) -> str:
    Rate.parse(text)
    return text


RateText = Annotated[str, AfterValidator(_check_rate)]
"""`600/60`: so many requests in so many seconds; `off`: any number."""


class RateLimitSettings(BaseModel):
    """Rates by the names of their policies; a name that is absent keeps the rate that its feature gives it.

    An app subclasses it to say which `names` there are, beside `default`: it knows what it is composed of.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)
    __pydantic_extra__: dict[str, RateText]

    names: ClassVar[frozenset[str]] = frozenset()

    default: RateText = "600/60"
    """The rate of each client address on every route that has no policy of its own."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: object) -> object:
        unknown = sorted(set(data) - cls.names - {"default"}) if isinstance(data, dict) else []
        if unknown:
            faults = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=None) for name in unknown]
            raise ValidationError.from_exception_data(cls.__name__, faults, hide_input=True)
        return data

    def rate(self, name: str, default: str) -> Rate | None:
        """Return the rate of a policy, `default` unless one was set; None lifts the limit."""
        return Rate.parse((self.__pydantic_extra__ or {}).get(name, default))


class CelerySettings(BaseModel):
    """The broker and the four times that only keep their word together; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    broker_url: SecretStr
    """`redis://user:password@host:port/database`, a database apart from the cache's; `rediss://` verifies certificate
    and host name, and takes the options `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (files in PEM format),
    `ssl_check_hostname=false` and `ssl_cert_reqs=none`."""
    result_backend: SecretStr | None = None
    """As the broker's URL; None: results are not kept."""
    soft_time_limit: int = Field(default=270, gt=0)
    """When a task is asked to end: its coroutine is cancelled."""
    time_limit: int = Field(default=300, gt=0)
    """When a task's process is killed."""
    visibility_timeout: int = Field(default=600, gt=0)
    """When a message that nobody acknowledged is delivered again."""
    soft_shutdown_timeout: int = Field(default=20, ge=0)
    """How long a stopping worker waits for its tasks before it hands them back."""

    @property
    def broker_tls(self) -> Mapping[str, Any] | None:
        """How the broker is verified, as arguments of redis-py's `SSLConnection`; None: not encrypted."""
        return parse_redis_url(self.broker_url.get_secret_value()).tls

    @property
    def result_tls(self) -> Mapping[str, Any] | None:
        """The same for the result backend."""
        return parse_redis_url(self.result_backend.get_secret_value()).tls if self.result_backend else None

    def production_faults(self) -> Iterator[tuple[str, str]]:
        """Return what production refuses: servers that anybody can pose as."""
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
    """Return the database, its `db_pool_*` gauges in `registry`; nothing is opened before the first use."""
    return Database(settings, registry=registry)


def refuse_wrong_encoding(settings: DatabaseSettings) -> None:
    """End the process with status 78 and one line when the database's encoding is not UTF8; runs its own event loop.

    A database that gives no answer within 5 s is left to readiness, which asks again.
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


def build_pending_messages(
    database: Database, *, redelivery: timedelta, registry: CollectorRegistry | None = None
) -> SqlPendingMessages:
    """Return the outbox as the relay reads it; a message that is not settled within `redelivery` is published again.

    `registry` gets `outbox_pending`, `outbox_oldest_age_seconds` and `outbox_given_up_total`.
    """
    return SqlPendingMessages(database, redelivery=redelivery, registry=registry)


def build_storage(settings: StorageSettings) -> ObstoreStorage:
    """Return the object storage that the URL names."""
    return ObstoreStorage(settings)


def build_mailer(settings: MailSettings, *, registry: CollectorRegistry | None = None) -> SmtpMailer | FolderMailer:
    """Return a mailer that sends by SMTP, or one that writes to the folder when there is no server.

    `registry` gets `mails_total{outcome}` of the mails that go to a server.
    """
    return SmtpMailer(settings, registry=registry) if settings.smtp_url else FolderMailer(settings)
