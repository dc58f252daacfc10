"""Settings of the HTTP client: four profiles of timeouts, the limits of connections, and the trusted certificates."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, FilePath, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

LONGEST_TIMEOUT: Final = 3600
"""Seconds; a call must end."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT)]


class HttpProfile(BaseModel):
    """Timeouts of a kind of call, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    connect: Seconds
    """Seconds for each step to a connection: waiting for a free one of the pool, looking up and connecting, TLS."""
    read: Seconds
    """The longest pause in seconds while a request is sent or a response is received."""
    total: Seconds
    """Seconds from the call to the end of the response's body, with redirects, all attempts and the waits between them;
    not below the other two."""

    @model_validator(mode="after")
    def _check_total(self) -> Self:
        if self.total < max(self.connect, self.read):
            raise PydanticCustomError("total", "total should not be below connect and read")
        return self


class HttpSettings(BaseModel):
    """Timeouts by profile, and limits that hold for each profile."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    default: HttpProfile = HttpProfile(connect=5, read=25, total=30)
    """Calls of APIs."""
    llm: HttpProfile = HttpProfile(connect=10, read=110, total=120)
    """Calls of language models, which take long to answer."""
    health: HttpProfile = HttpProfile(connect=2, read=3, total=5)
    """Checks whether a service works."""
    webhooks: HttpProfile = HttpProfile(connect=5, read=10, total=15)
    """Calls of addresses that users give."""
    max_connections: int = Field(default=100, ge=1)
    """The number of connections of a profile; a further call waits for a free one, at most as long as for a
    connection."""
    max_keepalive_connections: int = Field(default=20, ge=0)
    """The number of idle connections of a profile that stay open."""
    attempts: int = Field(default=3, ge=1, le=10)
    """How often an idempotent request is sent at most, the first time included."""
    max_response_bytes: int = Field(default=10 * 1024 * 1024, ge=1)
    """The longest body of a response in bytes, after decompression; a call can have a limit of its own."""
    ca_file: FilePath | None = None
    """Certificates of the trusted authorities (PEM), instead of those of Mozilla that the package certifi contains."""

    @field_validator("default", "llm", "health", "webhooks", mode="before")
    @classmethod
    def _complete(cls, value: object, info: ValidationInfo) -> object:
        """Return the values of a profile with the missing ones of its default, so that one can be set alone."""
        if not isinstance(value, Mapping) or info.field_name is None:
            return value
        default: HttpProfile = cls.model_fields[info.field_name].default
        return {**default.model_dump(), **value}

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                ssl.create_default_context(cafile=path)
            except OSError as error:  # ssl.SSLError included
                raise PydanticCustomError("ca_file", "should be a readable file of certificates in PEM") from error
        return path
