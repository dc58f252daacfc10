"""Spans of messages (OpenTelemetry, messaging spans): created in a transaction, sent by a relay, processed by a worker.

Sending and processing are children of the creation, so that a trace goes on in the tasks that a request has caused, and
shows how long a message waited in the outbox and in the queue. The outbox row carries the identity of the creation.
"""

from collections.abc import Sequence
from uuid import UUID

from tequipy_observability import Span, SpanKind, current_context, entry_span, span
from tequipy_platform._messages import Attempt, UnpublishedMessage


def creation_trace(name: str, message_id: UUID) -> str | None:
    """Record that a message for a task, or an event, is created; return the traceparent for its row.

    Without a recorded trace this is the traceparent of the current context.
    """
    step = span("create", name, kind=SpanKind.PRODUCER)
    _describe(step, "create", name, message_id)
    step.end()
    return step.traceparent or current_context().traceparent


def start_trace(name: str, message_id: UUID) -> str | None:
    """Record the creation of a message that has no cause, such as a scheduled one, as the first span of a trace."""
    step = entry_span("create", name, kind=SpanKind.PRODUCER, traceparent=None)
    _describe(step, "create", name, message_id)
    step.end()
    return step.traceparent


def sending_spans(messages: Sequence[UnpublishedMessage]) -> list[Span]:
    """Return a span for each message that belongs to a trace; the caller ends them."""
    steps = []
    for message in messages:
        if message.traceparent is not None:
            step = entry_span("send", message.task, kind=SpanKind.PRODUCER, traceparent=message.traceparent)
            _describe(step, "send", message.task, message.id)
            steps.append(step)
    return steps


def processing_span(attempt: Attempt) -> Span:
    """Return the span of an attempt at a message."""
    step = entry_span("process", attempt.task, kind=SpanKind.CONSUMER, traceparent=attempt.traceparent)
    _describe(step, "process", attempt.task, attempt.message_id)
    if step.recording:
        step.set("tequipy.attempt", attempt.failed_attempts + 1)
        step.set("tequipy.correlation_id", attempt.correlation_id or "")
    return step


def _describe(step: Span, operation: str, name: str, message_id: UUID) -> None:
    if step.recording:
        step.set("messaging.system", "tequipy_outbox")
        step.set("messaging.operation.type", operation)
        step.set("messaging.operation.name", operation)
        step.set("messaging.destination.name", name)
        step.set("messaging.message.id", str(message_id))
