"""Settings of the export of spans."""

import sys

import pytest
from pydantic import SecretStr, ValidationError

from tequipy_observability.settings import parse_headers
from tequipy_observability.wiring import ObservabilitySettings


def build(**values: object) -> ObservabilitySettings:
    return ObservabilitySettings.model_validate(values)


@pytest.mark.parametrize("endpoint", ["http://collector:4318", "https://otlp.example.com/", "http://[::1]:4318/base"])
def test_an_endpoint_is_a_base_url(endpoint: str) -> None:
    """An http or https URL is accepted, without its slash at the end."""
    assert build(otlp_endpoint=endpoint).otlp_endpoint == endpoint.rstrip("/")


@pytest.mark.parametrize(
    "endpoint",
    [
        "collector:4318",
        "grpc://collector:4317",
        "http://",
        "http://collector:port",
        "http://user:s3cret@collector",
        "http://collector?key=s3cret",
        "http://[s3cret",
    ],
)
def test_a_wrong_endpoint_is_refused_without_its_value(endpoint: str) -> None:
    """The fault says what is expected, and never quotes the URL, which may hold a secret."""
    with pytest.raises(ValidationError) as caught:
        build(otlp_endpoint=endpoint)
    (fault,) = caught.value.errors(include_url=False, include_input=False)
    assert fault["loc"] == ("otlp_endpoint",)
    assert "s3cret" not in str(caught.value)


def test_a_missing_extra_is_a_fault_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry an endpoint is refused with the extra to install."""
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(ValidationError, match=r"install tequipy-observability\[otel\]"):
        build(otlp_endpoint="http://collector:4318")


def test_headers_have_the_usual_form() -> None:
    """Headers are pairs after commas with percent-encoded values, as in OTEL_EXPORTER_OTLP_HEADERS."""
    secret = SecretStr("Authorization=Basic%20dXNlcjpwYXNz==, x-key=a%2Cb ")
    assert parse_headers(secret) == {"authorization": "Basic dXNlcjpwYXNz==", "x-key": "a,b"}


@pytest.mark.parametrize(
    "text", ["", "s3cret", "=s3cret", "a b=s3cret", "a=s3cret%0d%0aHost: x", "a=s3cret%C3%A9", "a=x,,"]
)
def test_wrong_headers_are_refused_without_their_value(text: str) -> None:
    """Text that is no list of header fields is refused; line breaks cannot add fields."""
    with pytest.raises(ValidationError) as caught:
        build(otlp_headers=text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "faulty"),
    [
        ("http://collector:4318", True),
        ("https://collector:4318", False),
        ("http://127.0.0.1:4318", False),
        ("http://localhost:4318", False),
    ],
)
def test_headers_do_not_cross_the_network_in_plain_text(endpoint: str, faulty: bool) -> None:
    """Production refuses to send headers, which hold a secret, over http to another host."""
    settings = build(otlp_endpoint=endpoint, otlp_headers="authorization=s3cret")
    assert [name for name, _ in settings.production_faults()] == ["otlp_endpoint"] * faulty
    assert build(otlp_endpoint=endpoint).production_faults() == []
