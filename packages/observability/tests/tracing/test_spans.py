"""Spans: what is recorded, what follows them, and what they cost while tracing is off."""

import asyncio
import sys

import pytest

from tequipy_observability import (
    NO_SPAN,
    RequestContext,
    SpanKind,
    bind_context,
    current_context,
    entry_span,
    request_context,
    span,
    tracing_enabled,
)
from tequipy_observability.testing import SpanRecorder, describe_spans, recorded_spans
from tequipy_observability.tracing.tracer import OtelTracer

from .recorder import spans

TRACE_ID = "a" * 32
SAMPLED = f"00-{TRACE_ID}-{'b' * 16}-01"
UNSAMPLED = f"00-{TRACE_ID}-{'b' * 16}-00"

__all__ = ["spans"]


def test_without_tracing_every_span_is_the_same_object() -> None:
    """While tracing is off, all spans are one object that keeps nothing, and none is allocated."""
    assert not tracing_enabled()

    def steps() -> None:
        with span("step", "target", kind=SpanKind.CLIENT) as inner:
            inner.set("name", "value")
        entry_span("step", kind=SpanKind.SERVER, traceparent=SAMPLED).end()

    steps()
    assert span("step") is entry_span("step", kind=SpanKind.SERVER, traceparent=SAMPLED) is NO_SPAN
    assert (NO_SPAN.recording, NO_SPAN.traceparent) == (False, None)
    before = sys.getallocatedblocks()
    for _ in range(1000):
        steps()
    assert sys.getallocatedblocks() - before < 10


def test_a_child_belongs_to_the_current_span(spans: SpanRecorder) -> None:
    """Children have the parent's trace and its id as their parent, and carry names, kinds and attributes."""
    with entry_span("GET", "/orders", kind=SpanKind.SERVER, traceparent=SAMPLED), span("load", "order") as inner:
        inner.set("rows", 2)
        inner.event("found", {})
        span("SELECT", "orders", kind=SpanKind.CLIENT).end()
    server, load, select = spans.spans
    print(describe_spans(spans.spans))
    assert [each.name for each in (server, load, select)] == ["GET /orders", "load order", "SELECT orders"]
    assert {each.trace_id for each in spans.spans} == {TRACE_ID}
    assert (server.parent_id, load.parent_id, select.parent_id) == ("b" * 16, server.span_id, load.span_id)
    assert (load.attributes, load.events, load.kind) == ({"rows": 2}, ("found",), SpanKind.INTERNAL)
    assert (select.kind, select.failed) == (SpanKind.CLIENT, False)


def test_the_context_has_the_current_spans_identity(spans: SpanRecorder) -> None:
    """Logs, messages and outgoing calls get the id of the innermost span; afterwards that of the outer one."""
    seen = []
    with request_context(RequestContext(correlation_id="abc", traceparent=SAMPLED)):
        with entry_span("outer", kind=SpanKind.SERVER, traceparent=SAMPLED):
            seen.append(current_context().traceparent)
            with span("inner"):
                bind_context(user_id="ada")
                seen.append(current_context().traceparent)
            seen.append(current_context().traceparent)
            assert current_context().user_id == "ada", "what a step has bound outlives it"
        assert current_context() == RequestContext(correlation_id="abc", traceparent=SAMPLED, user_id="ada")
    outer, inner = spans.spans
    assert seen == [f"{each.traceparent}-01" for each in (outer, inner, outer)]


async def test_tasks_that_a_span_started_are_its_children(spans: SpanRecorder) -> None:
    """A task inherits the current span, also if it outlives it; steps side by side do not become each other's."""
    finish = asyncio.Event()

    async def step(name: str) -> None:
        with span(name):
            await finish.wait()

    async def late() -> None:
        await finish.wait()
        span("late").end()

    with entry_span("outer", kind=SpanKind.SERVER, traceparent=None):
        tasks = [asyncio.create_task(step("one")), asyncio.create_task(step("two")), asyncio.create_task(late())]
        await asyncio.sleep(0)
    finish.set()
    await asyncio.gather(*tasks)
    outer, *others = spans.spans
    assert sorted((each.name, each.parent_id) for each in others) == [
        (name, outer.span_id) for name in ("late", "one", "two")
    ]


def test_an_error_is_recorded_by_its_type_alone(spans: SpanRecorder) -> None:
    """A span that an exception leaves has failed; the error's text, which can hold anything, is not recorded."""

    def fail() -> None:
        with entry_span("outer", kind=SpanKind.SERVER, traceparent=None) as outer, span("inner"):
            outer.fail("busy")
            raise LookupError("of ada@example.com")

    with pytest.raises(LookupError):
        fail()
    found = {each.name: (each.failed, each.attributes, each.events) for each in spans.spans}
    assert found == {
        "outer": (True, {"error.type": "busy"}, ()),
        "inner": (True, {"error.type": "LookupError"}, ()),
    }


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", f"00-{'0' * 32}-{'b' * 16}-01"])
def test_a_new_trace_begins_without_a_valid_traceparent(spans: SpanRecorder, traceparent: str | None) -> None:
    """Without a traceparent, or with an invalid one, a span is the first of a new trace."""
    entry_span("step", kind=SpanKind.CONSUMER, traceparent=traceparent).end()
    (found,) = spans.spans
    assert found.parent_id is None
    assert found.trace_id not in {TRACE_ID, "0" * 32}


def test_a_trace_that_the_caller_does_not_record_is_not_recorded(spans: SpanRecorder) -> None:
    """The flag of the caller is obeyed: nothing is recorded, and the trace is still passed on, unsampled."""
    with entry_span("outer", kind=SpanKind.SERVER, traceparent=UNSAMPLED) as outer:
        carried = current_context().traceparent
        assert span("inner") is NO_SPAN
        assert not outer.recording
    assert spans.spans == []
    assert carried is not None
    assert (carried[:36], carried[-3:]) == (UNSAMPLED[:36], "-00")


def test_steps_outside_of_a_trace_are_not_recorded(spans: SpanRecorder) -> None:
    """Work that no request and no task caused, such as the relay's polling, begins no traces."""
    with span("step"):
        span("further").end()
    assert spans.spans == []


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_a_share_of_new_traces_is_recorded(ratio: float, share: float) -> None:
    """Of new traces the configured share is recorded, and of those that a caller records each one."""
    tracer = OtelTracer(SpanRecorder().tracer._build_processor, sample_ratio=ratio)
    tracer.start()
    new = [tracer.entry("step", "", SpanKind.SERVER, None).recording for _ in range(2000)]
    assert abs(sum(new) / len(new) - share) < 0.1
    assert all(tracer.entry("step", "", SpanKind.SERVER, SAMPLED).recording for _ in range(100))
    tracer.stop()


def test_nothing_is_recorded_before_the_start_and_after_the_end() -> None:
    """A tracer makes empty spans until it is started, and after it is stopped; it can be started again."""
    recorder = SpanRecorder()
    tracer = recorder.tracer
    assert tracer.entry("before", "", SpanKind.SERVER, None) is NO_SPAN
    tracer.start()
    tracer.start()
    running = tracer.entry("within", "", SpanKind.SERVER, None)
    running.end()
    tracer.stop()
    tracer.stop()
    assert tracer.entry("after", "", SpanKind.SERVER, None) is NO_SPAN
    assert [each.name for each in recorder.spans] == ["within"]


def test_the_recorder_restores_the_tracer() -> None:
    """After the block spans are as before it."""
    with recorded_spans():
        assert tracing_enabled()
    assert not tracing_enabled()
