"""Settings of Celery's broker."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tequipy_platform.messaging.celery.broker_url import (
    INSECURE,
    AmqpUrl,
    RedisUrl,
    parse_broker_url,
    parse_redis_url,
)


class CelerySettings(BaseModel):
    """The broker, and four times that depend on each other, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {"broker_url": INSECURE, "result_backend": INSECURE}

    broker_url: SecretStr
    """`redis://user:password@host:port/database` (use another database than the cache), or
    `amqp://user:password@host:port/virtual_host` for RabbitMQ. `rediss://` and `amqps://` verify certificate and host
    name, and accept the options `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (PEM files), `ssl_check_hostname=false`
    and `ssl_cert_reqs=none`."""
    result_backend: SecretStr | None = None
    """A URL of Redis; None: results are not kept."""
    soft_time_limit: int = Field(default=270, gt=0)
    """Seconds after which a task's coroutine is cancelled; below `time_limit`."""
    time_limit: int = Field(default=300, gt=0)
    """Seconds after which a task's process is killed; below `visibility_timeout`."""
    visibility_timeout: int = Field(default=600, gt=0)
    """Seconds after which Redis delivers an unacknowledged message again; RabbitMQ does when its worker is gone."""
    soft_shutdown_timeout: int = Field(default=20, ge=0)
    """Seconds that a stopping worker waits for its tasks before it returns them to the queue."""

    @property
    def broker(self) -> RedisUrl | AmqpUrl:
        """The parts of the broker's URL."""
        return parse_broker_url(self.broker_url.get_secret_value())

    @property
    def result_tls(self) -> Mapping[str, Any] | None:
        """TLS options of the result backend as arguments of redis-py's `SSLConnection`; None: not encrypted."""
        return parse_redis_url(self.result_backend.get_secret_value()).tls if self.result_backend else None

    def production_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the URLs that production refuses because they do not verify the server."""
        if not self.broker.verified:
            yield "broker_url", self.production_rules["broker_url"]
        if self.result_backend and not parse_redis_url(self.result_backend.get_secret_value()).verified:
            yield "result_backend", self.production_rules["result_backend"]

    @field_validator("broker_url")
    @classmethod
    def _check_broker(cls, secret: SecretStr) -> SecretStr:
        parse_broker_url(secret.get_secret_value())
        return secret

    @field_validator("result_backend")
    @classmethod
    def _check_results(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            parse_redis_url(secret.get_secret_value())
        return secret

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if not self.soft_time_limit < self.time_limit < self.visibility_timeout:
            raise PydanticCustomError("times", "should keep soft_time_limit < time_limit < visibility_timeout")
        return self
