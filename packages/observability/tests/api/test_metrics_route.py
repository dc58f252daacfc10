"""GET /metrics: its token, its own port, OpenMetrics and exemplars."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.middleware import Middleware

from tequipy_observability.api import ObserveRequests, Pipeline, TraceRequests, wire_observability
from tequipy_observability.wiring import Observability, ObservabilitySettings

from .observed_app import build_app

SAMPLED, UNSAMPLED = (f"00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("01", "00"))


async def test_metrics_may_ask_for_a_token() -> None:
    """With a token configured, /metrics requires it as a bearer token."""
    app = build_app(ObservabilitySettings(metrics_token=SecretStr("s3cret")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer s3cret"})).status_code == 200


@pytest.mark.parametrize("first", ["Bearer s3cret", "Bearer wrong"])
async def test_metrics_read_one_token(first: str) -> None:
    """Two `Authorization` headers give 400, even if one of them is valid."""
    app = build_app(ObservabilitySettings(metrics_token=SecretStr("s3cret")))
    headers = [("Authorization", first), ("Authorization", "Bearer s3cret")]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 400


async def test_guesses_of_the_metrics_token_are_limited() -> None:
    """After ten wrong tokens in a minute, /metrics responds 429 with `Retry-After`, even to the right token."""
    app = build_app(ObservabilitySettings(metrics_token=SecretStr("s3cret")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        wrong, right = ({"Authorization": f"Bearer {token}"} for token in ("guess", "s3cret"))
        assert [(await client.get("/metrics", headers=wrong)).status_code for _ in range(10)] == [401] * 10
        for headers in (wrong, right):
            answer = await client.get("/metrics", headers=headers)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")


async def test_metrics_may_have_a_port_of_their_own(free_port: Callable[[], int]) -> None:
    """With a port configured, the app has no /metrics, and the port serves them while the context is open."""
    port = free_port()
    settings, registry = ObservabilitySettings(metrics_port=port), CollectorRegistry()
    app = FastAPI(middleware=[Middleware(Pipeline, [ObserveRequests(registry), TraceRequests()])])
    async with Observability(settings, registry) as observability:
        wire_observability(app, observability)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.get("/metrics")).status_code == 404
            await client.get("/nowhere")
        async with httpx.AsyncClient() as client:
            assert "http_requests_total" in (await client.get(f"http://127.0.0.1:{port}/metrics")).text


async def test_openmetrics_on_request(client: httpx.AsyncClient) -> None:
    """A scraper that accepts OpenMetrics gets it."""
    answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("headers", "labels"),
    [
        ({"X-Correlation-ID": "abc"}, {"correlation_id": "abc"}),
        (
            {"X-Correlation-ID": "abc", "traceparent": SAMPLED},
            {"correlation_id": "abc", "trace_id": "a" * 32, "span_id": "b" * 16},
        ),
        ({"X-Correlation-ID": "abc", "traceparent": UNSAMPLED}, {"correlation_id": "abc"}),
        ({"X-Correlation-ID": "c" * 128, "traceparent": SAMPLED}, {"trace_id": "a" * 32, "span_id": "b" * 16}),
        ({"X-Correlation-ID": "c" * 128}, None),
    ],
    ids=["correlation", "sampled", "not sampled", "too long", "nothing fits"],
)
async def test_an_exemplar_names_a_request(
    client: httpx.AsyncClient, headers: dict[str, str], labels: dict[str, str] | None
) -> None:
    """In OpenMetrics each bucket refers to its last request, within the 128 characters of an exemplar."""
    await client.get("/me", headers=headers)
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = (await client.get("/metrics", headers=accept)).text
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # -- it parses a text
    found = [
        sample.exemplar.labels
        for family in families
        if family.name == "http_request_duration_seconds"
        for sample in family.samples
        if sample.exemplar and sample.labels["route"] == "/me"
    ]
    assert found == ([labels] if labels else [])


async def test_the_plain_format_has_no_exemplars(client: httpx.AsyncClient) -> None:
    """A scraper that does not accept OpenMetrics gets the plain text format without exemplars."""
    await client.get("/me")
    assert " # {" not in (await client.get("/metrics")).text
