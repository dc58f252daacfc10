"""Spans: the steps of a request or task that a trace shows. While tracing is off they record nothing, at hardly a cost.

Needs the standard library alone; the spans of `tequipy_observability.tracing` are OpenTelemetry's.
"""

from enum import Enum
from types import TracebackType
from typing import Final, Self


class SpanKind(Enum):
    """What a span stands for (OpenTelemetry, trace API, section SpanKind)."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span:
    """A step of a trace. A `with` block makes it the current one, and ends it; `end` ends one that was never current.

    This class is the span that records nothing. Names and values of attributes are those of OpenTelemetry's semantic
    conventions; they must hold no personal data and no secrets.
    """

    __slots__ = ()

    @property
    def recording(self) -> bool:
        """Whether attributes are kept: the trace is sampled."""
        return False

    @property
    def traceparent(self) -> str | None:
        """The span's identity in the form of W3C Trace Context; None if it has none."""
        return None

    def set(self, name: str, value: str | float) -> None:
        """Set an attribute."""

    def event(self, name: str, attributes: dict[str, str | int | float]) -> None:
        """Add an event, which has a time but no duration."""

    def fail(self, error: BaseException | str) -> None:
        """Mark the span as failed, by the type of an error or another short word; texts of errors are not recorded.

        Only the first call counts, which is nearest to the cause.
        """

    def end(self, error: BaseException | None = None) -> None:
        """End the span, as failed if there is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span; it failed if the block raised an error."""


NO_SPAN: Final = Span()


class Tracer:
    """Makes spans. This class is the tracer of a process without tracing."""

    enabled = False

    def child(self, operation: str, target: str, kind: SpanKind) -> Span:  # noqa: ARG002 -- the null object
        """Return a child of the current span, or `NO_SPAN` if there is none or its trace is not sampled."""
        return NO_SPAN

    def entry(self, operation: str, target: str, kind: SpanKind, traceparent: str | None) -> Span:  # noqa: ARG002 -- as above
        """Return a child of a span of another process, or the first span of a trace."""
        return NO_SPAN

    def start(self) -> None:
        """Begin to record and to export; call it after the process has been forked."""

    def stop(self) -> None:
        """Export what was recorded, in bounded time, and record no more."""


_tracer: Tracer = Tracer()


def install_tracer(tracer: Tracer) -> None:
    """Make this the tracer of the process."""
    global _tracer  # noqa: PLW0603 -- set once, when observability is configured
    _tracer = tracer


def installed_tracer() -> Tracer:
    """Return the tracer of the process."""
    return _tracer


def tracing_enabled() -> bool:
    """Return whether this process is configured to record spans."""
    return _tracer.enabled


def span(operation: str, target: str = "", *, kind: SpanKind = SpanKind.INTERNAL) -> Span:
    """Return a new child of the current span, named by an operation and its target, as in `GET /orders`.

    Records nothing if tracing is off, if there is no current span, or if its trace is not sampled.
    """
    return _tracer.child(operation, target, kind)


def entry_span(operation: str, target: str = "", *, kind: SpanKind, traceparent: str | None) -> Span:
    """Return a span with which a trace enters this process: a child of `traceparent`, or the first of a new trace."""
    return _tracer.entry(operation, target, kind, traceparent)
