"""Spans in memory, for tests. Needs the extra `otel`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from tequipy_observability import needs_extra

with needs_extra("tequipy-observability[otel]"):
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import INVALID_SPAN_CONTEXT

    from tequipy_observability._tracing import SpanKind, install_tracer, installed_tracer
    from tequipy_observability.tracing import OtelTracer

__all__ = ["RecordedSpan", "SpanRecorder", "describe_spans", "recorded_spans"]

_NANOSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RecordedSpan:
    """A span that has ended."""

    name: str
    kind: SpanKind
    trace_id: str
    span_id: str
    parent_id: str | None
    failed: bool
    started_ms: float
    ended_ms: float
    attributes: Mapping[str, object] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    service: str = ""

    @property
    def traceparent(self) -> str:
        """The span's identity without the flags: the first 52 characters of what other processes got."""
        return f"00-{self.trace_id}-{self.span_id}"


class SpanRecorder:
    """The spans that ended since `recorded_spans` began."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer = OtelTracer(lambda: SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[RecordedSpan]:
        """All of them, in the order in which they began."""
        found = (_recorded(span) for span in self._exporter.get_finished_spans())
        return sorted(found, key=lambda span: span.started_ms)


@contextmanager
def recorded_spans() -> Iterator[SpanRecorder]:
    """Record the spans of this process within the block.

    Build apps before, because `configure_observability` replaces the tracer of the process.
    """
    before, recorder = installed_tracer(), SpanRecorder()
    recorder.tracer.start()
    install_tracer(recorder.tracer)
    try:
        yield recorder
    finally:
        install_tracer(before)
        recorder.tracer.stop()


def describe_spans(spans: Iterable[RecordedSpan]) -> str:
    """Return spans as an indented tree, each under its parent, with kind, service and duration."""
    ordered = sorted(spans, key=lambda span: span.started_ms)
    known = {span.span_id for span in ordered}

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for span in ordered:
            if (span.parent_id if span.parent_id in known else None) == parent:
                failed = " FAILED" if span.failed else ""
                where = f" [{span.service}]" if span.service else ""
                took = f"{span.ended_ms - span.started_ms:.1f} ms"
                yield f"{'  ' * depth}{span.name}  {span.kind.value}{where} {took}{failed}"
                yield from lines(span.span_id, depth + 1)

    return "\n".join(lines(None, 0))


def _recorded(span: ReadableSpan) -> RecordedSpan:
    context = span.get_span_context() or INVALID_SPAN_CONTEXT
    return RecordedSpan(
        name=span.name,
        kind=SpanKind[span.kind.name],
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
        failed=not span.status.is_ok,
        started_ms=(span.start_time or 0) / _NANOSECONDS,
        ended_ms=(span.end_time or 0) / _NANOSECONDS,
        attributes=dict(span.attributes or {}),
        events=tuple(event.name for event in span.events),
    )
