"""Settings of logging, metrics and tracing."""

import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

PRODUCTION_TOKEN: Final = 16
"""The minimum length of a metrics token in production."""

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# RFC 9110, section 5.5, without obs-text and tabs; no space at either end.
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def _check_endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise PydanticCustomError("url", "should be a URL as http://collector:4318")
    if parts.username is not None or parts.query or parts.fragment:
        raise PydanticCustomError("url", "should be a URL without credentials, query and fragment: use OTLP_HEADERS")
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk.trace")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise PydanticCustomError("extra", "needs OpenTelemetry: install tequipy-observability[otel]")
    return text.rstrip("/")


def _check_headers(secret: SecretStr) -> SecretStr:
    if parse_headers(secret) is None:
        raise PydanticCustomError("headers", "should be name=value, further ones after commas, in ASCII (, as %2C)")
    return secret


def parse_headers(secret: SecretStr) -> Mapping[str, str] | None:
    """Return header fields from the form of `OTEL_EXPORTER_OTLP_HEADERS`, values decoded; None if it is invalid."""
    fields = {}
    for entry in secret.get_secret_value().split(","):
        name, _, value = entry.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            return None
        fields[name.lower()] = value
    return fields


class ObservabilitySettings(BaseModel):
    """Log level and format, where the metrics are served, and where spans are sent."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {
        "log_level": "DEBUG is refused in production: libraries then log the data that they handle",
        "metrics_token": f"should have at least {PRODUCTION_TOKEN} characters in production",
        "otlp_endpoint": "should be https: OTLP_HEADERS would cross the network in plain text",
    }

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level of events that are logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console in the local environment, JSON elsewhere."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """The port that serves the metrics; None: /metrics of the API serves them, and a worker's process serves none."""
    metrics_token: SecretStr | None = None
    """The bearer token that scrapers must send; None: the metrics are open."""
    otlp_endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    """The base URL of a collector of OpenTelemetry (OTLP over HTTP); None: no spans are recorded."""
    otlp_headers: Annotated[SecretStr, AfterValidator(_check_headers)] | None = None
    """Header fields for the collector: `name=value`, further ones after commas, values percent-encoded."""
    trace_sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of new traces that is recorded; one that a caller has begun is recorded if the caller records it."""

    def random_secrets(self) -> Mapping[str, Iterable[SecretStr]]:
        """Return the secrets of each setting."""
        return {"metrics_token": [self.metrics_token] if self.metrics_token else []}

    def production_faults(self) -> list[tuple[str, str]]:
        """Refuse in production: the log level DEBUG, a token that can be guessed, and headers sent in plain text."""
        names = []
        if self.log_level == "DEBUG":
            names.append("log_level")
        if self.metrics_token is not None and len(self.metrics_token.get_secret_value()) < PRODUCTION_TOKEN:
            names.append("metrics_token")
        if self.otlp_endpoint is not None and self.otlp_headers is not None and _in_plain_text(self.otlp_endpoint):
            names.append("otlp_endpoint")
        return [(name, self.production_rules[name]) for name in names]


def _in_plain_text(url: str) -> bool:
    parts = urlsplit(url)
    try:
        local = ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = parts.hostname == "localhost"
    return parts.scheme == "http" and not local
