"""Spans of OpenTelemetry, and the tracer that makes them."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextvars import Token
from types import MappingProxyType, TracebackType
from typing import Final, Self
from uuid import uuid4

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from tequipy_observability._context import accept_traceparent, current_context, replace_traceparent
from tequipy_observability._tracing import NO_SPAN, Span, SpanKind, Tracer

FLUSH_SECONDS: Final = 2.0
"""How long the end of a process may wait for the collector. A worker kills its child processes 3.2 s after their last
task at the earliest."""
_MAX_ATTRIBUTE_LENGTH: Final = 2048
_KINDS: Final = {kind: trace.SpanKind[kind.name] for kind in SpanKind}


class OtelTracer(Tracer):
    """A tracer whose spans go to a processor, which is built by `start`, because its thread would not survive a fork.

    OpenTelemetry's global tracer provider is left alone: FastAPI would record each request a second time, with its
    query.
    """

    enabled = True

    def __init__(
        self,
        build_processor: Callable[[], SpanProcessor],
        *,
        attributes: Mapping[str, str] = MappingProxyType({}),
        sample_ratio: float = 1.0,
    ) -> None:
        self._build_processor = build_processor
        self._attributes = attributes
        self._sampler = ParentBased(TraceIdRatioBased(sample_ratio))
        self._provider: TracerProvider | None = None
        self._otel: trace.Tracer | None = None

    def start(self) -> None:
        """Begin to record; calling it again changes nothing."""
        if self._provider is not None:
            return
        limits = SpanLimits(max_attribute_length=_MAX_ATTRIBUTE_LENGTH)
        # `stop` flushes in bounded time; the SDK's own handler at exit waits for half a minute.
        # The identity of this process, which may be one of many that were forked.
        resource = Resource.create(
            {
                **dict(self._attributes),
                "service.instance.id": str(uuid4()),
                "host.name": socket.gethostname(),
                "process.pid": os.getpid(),
            }
        )
        provider = TracerProvider(self._sampler, resource, shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(self._build_processor())
        self._provider, self._otel = provider, provider.get_tracer("tequipy")

    def stop(self) -> None:
        """Export what was recorded within `FLUSH_SECONDS`; log if that does not suffice. Blocks meanwhile."""
        provider, self._provider, self._otel = self._provider, None, None
        if provider is None:
            return
        # In a daemon thread, because an export may wait longer for a collector that hangs, and would hold up the exit.
        flush = threading.Thread(target=provider.shutdown, name="tequipy-spans-flush", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)
        if flush.is_alive():
            log = structlog.get_logger(logger_name="tequipy.tracing")
            log.warning("spans_abandoned", reason=f"the collector did not take them within {FLUSH_SECONDS:g} s")

    def child(self, operation: str, target: str, kind: SpanKind) -> Span:
        """Return a child of the current span, or `NO_SPAN` if there is none or its trace is not sampled."""
        if self._otel is None or not trace.get_current_span().get_span_context().trace_flags.sampled:
            return NO_SPAN
        return _OtelSpan(self._otel.start_span(_named(operation, target), kind=_KINDS[kind]))

    def entry(self, operation: str, target: str, kind: SpanKind, traceparent: str | None) -> Span:
        """Return a child of a span of another process, or the first span of a trace."""
        if self._otel is None:
            return NO_SPAN
        context = Context()
        if (parent := accept_traceparent(traceparent)) is not None:
            _, trace_id, span_id, flags = parent.split("-")[:4]
            remote = SpanContext(
                int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
            )
            context = trace.set_span_in_context(NonRecordingSpan(remote), context)
        return _OtelSpan(self._otel.start_span(_named(operation, target), context, _KINDS[kind]))


def _named(operation: str, target: str) -> str:
    return f"{operation} {target}" if target else operation


class _OtelSpan(Span):
    """A span of OpenTelemetry; while it is the current one, logs, messages and outgoing calls carry its identity."""

    __slots__ = ("_failed", "_outer", "_span", "_token")

    def __init__(self, otel_span: trace.Span) -> None:
        self._span = otel_span
        self._failed = False
        self._outer: str | None = None
        self._token: Token[Context] | None = None

    @property
    def recording(self) -> bool:
        """Whether attributes are kept."""
        return self._span.is_recording()

    @property
    def traceparent(self) -> str | None:
        """The span's identity."""
        own = self._span.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}" if own.is_valid else None

    def set(self, name: str, value: str | float) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, value)

    def event(self, name: str, attributes: dict[str, str | int | float]) -> None:
        """Add an event."""
        self._span.add_event(name, attributes)

    def fail(self, error: BaseException | str) -> None:
        """Mark the span as failed; only the first call counts, which is nearest to the cause."""
        if self._failed:
            return
        self._failed = True
        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", error if isinstance(error, str) else _class_name(error))

    def end(self, error: BaseException | None = None) -> None:
        """End the span."""
        if error is not None:
            self.fail(error)
        self._span.end()

    def __enter__(self) -> Self:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        self._outer = current_context().traceparent
        replace_traceparent(self.traceparent or self._outer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The rest of the context stays: a block may have bound the user.
        replace_traceparent(self._outer)
        if self._token is not None:
            otel_context.detach(self._token)
        self.end(error)


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
