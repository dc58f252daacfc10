"""The export of spans: what the collector gets, and what its outages cost."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import SecretStr

from tequipy_devstack.proving import TraceCollector, eventually, trace_collector
from tequipy_observability import SpanKind, entry_span, span
from tequipy_observability._tracing import Tracer, install_tracer
from tequipy_observability.tracing import export
from tequipy_observability.tracing.tracer import FLUSH_SECONDS
from tequipy_observability.wiring import Observability, ObservabilitySettings, configure_observability

from ..log_lines import Lines


@pytest.fixture
def collector() -> Iterator[TraceCollector]:
    with trace_collector() as running:
        yield running


Configure = Callable[..., Observability]


@pytest.fixture
def configure(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:  # noqa: ARG001 -- logging is restored after the test
    """Return a function that configures this process to export spans to an endpoint."""

    def build(endpoint: str, **settings: object) -> Observability:
        values = ObservabilitySettings.model_validate({"otlp_endpoint": endpoint, **settings})
        return configure_observability(values, service="shop", environment="test", version="1.2")

    # Exports that were abandoned end soon after, so that they log nothing in the next test.
    monkeypatch.setattr(export, "EXPORT_SECONDS", FLUSH_SECONDS + 0.5)
    yield build
    install_tracer(Tracer())
    eventually("no export runs", lambda: not [thread for thread in threading.enumerate() if "Otel" in thread.name])


def record(*names: str) -> None:
    with entry_span("first", kind=SpanKind.SERVER, traceparent=None):
        for name in names:
            span(name).end()


async def test_the_collector_gets_all_spans_at_the_end(collector: TraceCollector, configure: Configure) -> None:
    """Spans that are still queued are exported when the process ends, with its name and the configured headers."""
    headers = SecretStr("Authorization=Bearer%20s3cret,X-Scope-OrgID=tenant")
    async with configure(collector.endpoint, otlp_headers=headers):
        record("second")
        assert collector.spans == []
    assert [(each.name, each.service) for each in collector.spans] == [("first", "shop"), ("second", "shop")]
    (sent,) = collector.requests
    assert (sent["authorization"], sent["x-scope-orgid"]) == ("Bearer s3cret", "tenant")


async def test_no_other_tracer_provider_is_touched(collector: TraceCollector, configure: Configure) -> None:
    """OpenTelemetry's global provider stays unset, because FastAPI would otherwise record requests a second time."""
    from opentelemetry import trace  # noqa: PLC0415 -- only this test needs it

    async with configure(collector.endpoint):
        assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"


@pytest.mark.parametrize("fault", ["refuses", "hangs", "answers 503", "answers 401"])
async def test_the_end_of_a_process_does_not_wait_for_the_collector(
    collector: TraceCollector, configure: Configure, free_port: Callable[[], int], lines: Lines, fault: str
) -> None:
    """Whatever the collector does, closing takes at most `FLUSH_SECONDS`; the loss is logged without the headers."""
    collector.hangs = fault == "hangs"
    collector.status = int(fault.rsplit(maxsplit=1)[-1]) if fault.startswith("answers") else 200
    endpoint = f"http://127.0.0.1:{free_port()}" if fault == "refuses" else collector.endpoint
    async with configure(endpoint, otlp_headers=SecretStr("authorization=s3cret")):
        for _ in range(600):  # more than one batch
            record()
        began = time.monotonic()
    took = time.monotonic() - began
    logged = [line for line in lines() if line["logger"] == "tequipy.tracing"]
    print(f"\na collector that {fault}: closed after {took:.2f} s; {[line['message'] for line in logged]}")
    assert took < FLUSH_SECONDS + 1
    assert {line["message"] for line in logged} <= {"span_export_failed", "spans_abandoned"}
    assert 1 <= len(logged) <= 2
    assert "s3cret" not in str(logged)


def _more_than(collector: TraceCollector, number: int) -> bool:
    return len(collector.requests) > number


async def test_an_outage_of_the_collector_is_logged_once(
    collector: TraceCollector, configure: Configure, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that refuses exports is logged once with the reason, and once when it accepts them again."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    collector.status = 401
    async with configure(collector.endpoint):
        for _ in range(3):
            refused = len(collector.requests)
            record()
            eventually("an export was refused", partial(_more_than, collector, refused))
        collector.status = 200
        record("taken")
        eventually("spans arrive again", lambda: "taken" in {each.name for each in collector.spans})
    logged = lines()
    assert [line["message"] for line in logged] == ["span_export_failed", "span_export_resumed"]
    assert "401" in str(logged[0]["reason"])


def spans_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, ReadableSpan) for each in gc.get_objects())


async def test_a_full_queue_drops_spans_instead_of_waiting(
    collector: TraceCollector, configure: Configure, lines: Lines
) -> None:
    """While the collector hangs, further spans are dropped without waiting, at most one batch and a queue are kept."""
    collector.hangs = True
    before = spans_in_memory()
    async with configure(collector.endpoint):
        began = time.monotonic()
        for _ in range(4_000):
            record()
        took = time.monotonic() - began
        kept = spans_in_memory() - before
    dropped = [line for line in lines() if "Queue full" in str(line["message"])]
    print(f"\n4,000 spans while the collector hangs: {took:.2f} s, {kept} kept, {len(dropped)} warnings")
    assert kept < 512 + 2048 + 100
    assert 1 <= len(dropped) <= 4


async def test_the_environment_does_not_redirect_spans(
    collector: TraceCollector,
    configure: Configure,
    free_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Proxies of the environment get no spans, and a password of `.netrc` does not replace the configured header."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with configure(collector.endpoint, otlp_headers=SecretStr("authorization=Bearer%20s3cret")):
        record()
    assert [sent["authorization"] for sent in collector.requests] == ["Bearer s3cret"]
    assert [each.name for each in collector.spans] == ["first"]
