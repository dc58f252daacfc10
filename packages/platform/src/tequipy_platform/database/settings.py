"""Settings of PostgreSQL: address, schemas, pool and timeouts."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tequipy_platform.database.tls import SSL_MODES, tls_attempts

DRIVER: Final = "postgresql+asyncpg"


_SCHEMA: Final = re.compile(r"(?!pg_|information_schema$)[a-z_][a-z0-9_]{0,62}")


def _check_schema(name: str) -> str:
    if not _SCHEMA.fullmatch(name):
        raise PydanticCustomError("schema_name", "should be a schema's name in lower case, as shop_auth")
    return name


SchemaName = Annotated[str, AfterValidator(_check_schema)]
"""A schema name that PostgreSQL does not reserve."""


class DatabaseSettings(BaseModel):
    """Address, TLS, schemas, pool and timeouts of PostgreSQL; times in seconds.

    An app subclasses it and lists its `known_schemas`, because only the app knows which packages it is composed of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    known_schemas: ClassVar[frozenset[str] | None] = None

    url: SecretStr
    """`postgresql+asyncpg://user:password@host:port/database`, with `?ssl=` and a mode of libpq: `disable`, `allow`,
    `prefer` (the default), `require`, `verify-ca` or `verify-full`."""
    direct_url: SecretStr | None = None
    """A URL that bypasses the pooler, for LISTEN and migration locks; required with `pgbouncer`. None: use `url`."""
    ssl_root_cert: FilePath | None = None
    """PEM file of the trusted authorities; None: those of the system. `~/.postgresql` is never read."""
    ssl_cert: FilePath | None = None
    """PEM file of the client certificate, if the server asks for one; its key is in the same file or in `ssl_key`."""
    ssl_key: FilePath | None = Field(default=None, validate_default=True)
    """PEM file of the unencrypted key of `ssl_cert`; None: the key is in that file."""
    pgbouncer: bool = False
    """Whether `url` leads to pgbouncer in transaction mode: no prepared statements, and timeouts and time zone are set
    in each transaction, because pooled server connections ignore start-up parameters."""
    schemas: dict[str, SchemaName] = Field(default_factory=dict)
    """Schema names by the packages' own names (`SCHEMAS__AUTH=shop_auth`), for databases in which another product uses
    such a name. To rename a schema in use: stop the apps, `ALTER SCHEMA … RENAME TO …`, set this."""
    application_name: str = "tequipy"
    """The name of our connections in `pg_stat_activity`."""
    pool_size: int = Field(default=5, ge=1)
    """The number of connections that the pool keeps. A process has at most these, `max_overflow`, one for
    notifications, and one for each readiness check that runs."""
    max_overflow: int = Field(default=10, ge=0)
    """Connections beyond `pool_size` that are opened under load, and closed when they are returned."""
    pool_timeout: float = Field(default=5, gt=0)
    """Seconds that a request waits for a free connection of the pool, before it gets 503."""
    pool_recycle: float = Field(default=600, gt=0)
    """Seconds after which a connection is replaced at its next use, so that it survives no firewall's idle timeout."""
    connect_timeout: float = Field(default=10, gt=0)
    """Seconds for opening a connection."""
    statement_timeout: float = Field(default=30, gt=0)
    """Seconds after which PostgreSQL cancels a statement; migrations have no such limit."""
    idle_in_transaction_timeout: float = Field(default=60, gt=0)
    """Seconds after which PostgreSQL ends a session that does nothing within a transaction, and frees its locks."""

    @property
    def max_connections(self) -> int:
        """The most connections that a process has at a time: the pool, one for notifications, and one for a check."""
        return self.pool_size + self.max_overflow + 2

    @field_validator("url", "direct_url")
    @classmethod
    def _check_url(cls, secret: SecretStr | None) -> SecretStr | None:
        try:
            url = make_url(secret.get_secret_value()) if secret else None
        except ArgumentError:
            url = URL.create("none")  # the error is not used, because it quotes the URL
        except ValueError:  # the port is not a number
            raise PydanticCustomError(
                "url", "user and password should be percent-encoded (/ as %2F, @ as %40), the port at most 65535"
            ) from None
        if url is not None and url.drivername != DRIVER:
            raise PydanticCustomError("url_scheme", "URL scheme should be postgresql+asyncpg")
        if url is not None and url.port is not None and not 0 < url.port < 1 << 16:
            raise PydanticCustomError("url_port", "URL should have a port from 1 to 65535")
        if url is not None and not url.database:
            raise PydanticCustomError("url_database", "URL should name a database")
        if url is not None and (set(url.query) - {"ssl"} or url.query.get("ssl", SSL_MODES[0]) not in SSL_MODES):
            raise PydanticCustomError(
                "url_query", "URL may have no option but ssl: {modes}", {"modes": ", ".join(SSL_MODES)}
            )
        return secret

    @field_validator("ssl_root_cert")
    @classmethod
    def _check_root_cert(cls, path: Path | None) -> Path | None:
        try:
            tls_attempts("verify-full", root_cert=path)
        except OSError:
            raise PydanticCustomError("certificate", "should be a readable file of PEM certificates") from None
        return path

    @field_validator("ssl_key")
    @classmethod
    def _check_key(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        cert = info.data.get("ssl_cert")
        if path is not None and cert is None:
            raise PydanticCustomError("certificate", "needs SSL_CERT to be set too")
        try:
            tls_attempts("require", cert=cert, key=path)
        except OSError:
            raise PydanticCustomError(
                "certificate", "should be the unencrypted PEM key of the certificate in SSL_CERT"
            ) from None
        return path

    @field_validator("pgbouncer")
    @classmethod
    def _check_direct_url(cls, pgbouncer: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
        # A pooler would lend the connection that holds a session lock to other clients, and drop notifications.
        if pgbouncer and info.data.get("direct_url", ...) is None:
            raise PydanticCustomError(
                "pgbouncer", "needs DIRECT_URL to be set too: LISTEN and locks cannot pass a pooler"
            )
        return pgbouncer

    @model_validator(mode="after")
    def _check_schemas(self) -> Self:
        known = self.known_schemas or frozenset(self.schemas)
        unknown = PydanticCustomError("schema", "no package has it, only: {names}", {"names": ", ".join(sorted(known))})
        faults = [
            InitErrorDetails(type=unknown, loc=("schemas", name), input=None)
            for name in sorted(set(self.schemas) - known)
        ]
        names = [self.schemas.get(name, name) for name in sorted(known)]
        if len(names) > len(set(names)):
            twice = PydanticCustomError("schemas", "should give each package a schema of its own")
            faults.append(InitErrorDetails(type=twice, loc=("schemas",), input=None))
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults, hide_input=True)
        return self
