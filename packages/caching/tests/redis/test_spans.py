"""Spans of calls of Redis."""

from collections.abc import Awaitable, Callable, Iterator

import pytest

from tequipy_caching import RatePolicy
from tequipy_caching.rate_limit.limiter import RedisRateLimiter
from tequipy_devstack.servers import ValkeyServer
from tequipy_observability import SpanKind, entry_span
from tequipy_observability.testing import SpanRecorder, recorded_spans

POLICY = RatePolicy("login", 10, 60)
Limiters = Callable[..., Awaitable[RedisRateLimiter]]


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    with recorded_spans() as recorder:
        yield recorder


async def test_a_call_of_redis_is_a_span(limiters: Limiters, redis_url: str, spans: SpanRecorder) -> None:
    """It is named by the script that runs, and has the server but no keys, which may name users."""
    limiter = await limiters(redis_url)
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        await limiter.hit(POLICY, "ada@example.com")
    request, call = spans.spans
    assert (call.name, call.kind, call.parent_id, call.failed) == (
        "EVALSHA rate_hit",
        SpanKind.CLIENT,
        request.span_id,
        False,
    )
    assert {"db.system.name", "db.namespace", "server.address", "server.port"} < set(call.attributes)
    assert "ada@example.com" not in str(spans.spans)


async def test_a_call_that_redis_does_not_answer_has_failed(
    limiters: Limiters, private_redis: ValkeyServer, spans: SpanRecorder
) -> None:
    """A call that exceeds its time is a failed span, and while the breaker is open there are none."""
    limiter = await limiters(private_redis.url())
    await limiter.hit(POLICY, "ada")
    private_redis.freeze()
    try:
        with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
            for _ in range(5):
                await limiter.hit(POLICY, "ada")
    finally:
        private_redis.thaw()
    calls = [span for span in spans.spans if span.name.startswith("EVALSHA")]
    assert [(span.failed, span.attributes["error.type"]) for span in calls] == [(True, "TimeoutError")]


async def test_work_in_the_background_is_not_recorded(limiters: Limiters, redis_url: str, spans: SpanRecorder) -> None:
    """Probes and other calls that no request caused record nothing."""
    limiter = await limiters(redis_url)
    await limiter.hit(POLICY, "ada")
    assert spans.spans == []
