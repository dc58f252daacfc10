"""Spans of messages: created with a request, sent by a relay, processed by a worker; in outbox and fake alike."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Self
from uuid import UUID

import pytest

from tequipy_observability import RequestContext, SpanKind, current_context, entry_span, request_context, span
from tequipy_observability.testing import RecordedSpan, SpanRecorder, describe_spans, recorded_spans
from tequipy_platform import Delivery, Event, RetryPolicy, SystemClock, Task, UnitOfWork, UnpublishedMessage
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork, build_scheduler, build_unpublished_messages
from tequipy_platform.messaging.deliveries import Deliveries, Outcome
from tequipy_platform.messaging.relay import Broker, Relay

from .twins import SqlTwin, Twin

ONCE = RetryPolicy(attempts=1)
TASK = Task("test.do", on=("test.done",), retry=ONCE)


class RecordingBroker(Broker):
    """A broker that keeps messages, and refuses those of one task."""

    def __init__(self, refused: str = "") -> None:
        self.messages: list[UnpublishedMessage] = []
        self._refused = refused

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def publish(self, messages: Sequence[UnpublishedMessage]) -> None:
        if any(message.task == self._refused for message in messages):
            raise ConnectionError("refused")
        self.messages += messages

    async def accepts_writes(self) -> bool:
        return True


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    with recorded_spans() as recorder:
        yield recorder


async def add(twin: Twin, task: str = "", event: str = "") -> UUID:
    """Add a message or an event as a use case does, and return its id."""
    if isinstance(twin, SqlTwin):
        async with unit_of_work(twin.database) as work:
            if event:
                work.outbox.publish(Event(event))
            else:
                work.outbox.add(task)
        return (await twin.rows())[-1].id
    return await twin.add(task or None, event=event or None)


def unit_of_work(database: Database) -> UnitOfWork:
    return SqlUnitOfWork(database, SystemClock(), uuid7)


def of_messages(spans: SpanRecorder) -> list[RecordedSpan]:
    """Return the spans of messages; those of the statements are left out."""
    return [span for span in spans.spans if "messaging.system" in span.attributes]


def named(spans: SpanRecorder, name: str) -> RecordedSpan:
    (found,) = (span for span in spans.spans if span.name == name)
    return found


async def test_a_task_is_part_of_the_trace_that_caused_it(twin: Twin, spans: SpanRecorder) -> None:
    """Sending and processing are children of the creation, which is a child of the request; each has its message."""

    async def handle(_: Delivery) -> None:
        span("inner").end()

    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        message_id = await add(twin, "test.do")
    relay = Relay(RecordingBroker(), twin.relay, [TASK])
    await relay._publish_batch()
    assert await Deliveries({TASK: handle}, twin.log).handle(message_id) is Outcome.SUCCEEDED
    print(f"\n{describe_spans(spans.spans)}")
    request, create = named(spans, "request"), named(spans, "create test.do")
    send, process = named(spans, "send test.do"), named(spans, "process test.do")
    assert (create.parent_id, send.parent_id, process.parent_id) == (request.span_id, create.span_id, create.span_id)
    assert (create.kind, send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert named(spans, "inner").parent_id == process.span_id
    assert {each.trace_id for each in spans.spans} == {request.trace_id}
    assert {each.attributes["messaging.message.id"] for each in (create, send, process)} == {str(message_id)}
    assert (process.attributes["tequipy.attempt"], process.attributes["tequipy.outcome"]) == (1, "succeeded")


async def test_each_attempt_is_a_span(twin: Twin, spans: SpanRecorder) -> None:
    """A failed attempt is a failed span with the type of its error; the next one is another child of the creation."""
    errors: list[Exception] = [LookupError("ada@example.com")]

    async def handle(_: Delivery) -> None:
        if errors:
            raise errors.pop()

    task = Task("test.do", retry=RetryPolicy(attempts=3))
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        message_id = await add(twin, "test.do")
    deliveries = Deliveries({task: handle}, twin.log)
    for _ in range(2):
        await twin.publish()
        await deliveries.handle(message_id)
        await twin.advance(timedelta(hours=1))
    first, second = (each for each in spans.spans if each.name == "process test.do")
    assert first.parent_id == second.parent_id == named(spans, "create test.do").span_id
    assert (first.failed, first.attributes["error.type"], first.attributes["tequipy.outcome"]) == (
        True,
        "LookupError",
        "retried",
    )
    assert (second.failed, second.attributes["tequipy.attempt"]) == (False, 2)
    assert "ada@example.com" not in str(spans.spans)


async def test_a_dead_letter_is_a_failed_span(twin: Twin, spans: SpanRecorder) -> None:
    """An attempt that ends its message without running the handler has failed too."""
    message_id = await add(twin, "test.do")
    for _ in range(TASK.retry.deaths):
        await twin.publish()
        await twin.log.begin(message_id, "host:1", redelivered=True)
    assert await Deliveries({TASK: _never}, twin.log).handle(message_id, redelivered=True) is Outcome.FAILED
    process = named(spans, "process test.do")
    assert (process.failed, process.attributes["error.type"]) == (True, "failed")


async def _never(_: Delivery) -> None:
    pytest.fail("it ran once more than its policy allows")


async def test_a_message_without_a_trace_begins_one_when_it_is_processed(twin: Twin, spans: SpanRecorder) -> None:
    """A row of a process without tracing is sent without a span, so that one trace and not two begins."""
    seen = []

    async def handle(_: Delivery) -> None:
        seen.append(str(current_context().traceparent)[:52])

    message_id = await add(twin, "test.do")
    assert (await twin.row(message_id)).traceparent is None
    await Relay(RecordingBroker(), twin.relay, [TASK])._publish_batch()
    await Deliveries({TASK: handle}, twin.log).handle(message_id)
    (process,) = of_messages(spans)
    assert (process.name, process.parent_id) == ("process test.do", None)
    assert seen == [process.traceparent]


async def test_the_messages_of_an_event_belong_to_its_trace(twin: Twin, spans: SpanRecorder) -> None:
    """The tasks that are subscribed to an event are processed as children of the event's creation."""

    async def handle(_: Delivery) -> None: ...

    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        await add(twin, event="test.done")
    broker = RecordingBroker()
    await Relay(broker, twin.relay, [TASK])._publish_batch()
    (message,) = broker.messages
    await Deliveries({TASK: handle}, twin.log).handle(message.id)
    create = named(spans, "create test.done")
    assert named(spans, "send test.do").parent_id == named(spans, "process test.do").parent_id == create.span_id


async def test_a_message_that_the_broker_refuses_is_a_failed_span(twin: Twin, spans: SpanRecorder) -> None:
    """Each try to send is a span: the round trip of the batch, which fails, then that of each message."""
    with entry_span("request", kind=SpanKind.SERVER, traceparent=None):
        await add(twin, "test.do")
        await add(twin, "test.mail")
    await Relay(RecordingBroker(refused="test.mail"), twin.relay, [TASK])._publish_batch()
    found = sorted((each.name, each.failed) for each in spans.spans if each.name.startswith("send"))
    assert found == [("send test.do", False), ("send test.do", True), *[("send test.mail", True)] * 2]


async def test_a_scheduled_message_begins_a_trace(database: Database, spans: SpanRecorder) -> None:
    """A scheduled task has no cause, so the creation of its message is the first span of a trace."""
    task = Task("test.tick", every=timedelta(seconds=1))
    scheduler = build_scheduler(database, [task])
    await scheduler.add_due()
    while not [each for each in spans.spans if each.name == "create test.tick"]:
        await scheduler.add_due()
    messages = build_unpublished_messages(database, redelivery=timedelta(minutes=10))
    async with messages.batch(1) as batch:
        (message,) = batch.messages
    create = named(spans, "create test.tick")
    assert (create.parent_id, str(message.traceparent)[:52]) == (None, create.traceparent)


async def test_a_trace_that_is_not_recorded_goes_on_unrecorded(database: Database, spans: SpanRecorder) -> None:
    """A request whose caller records nothing records no span anywhere; its tasks keep the ids of the trace."""
    caller = f"00-{'a' * 32}-{'b' * 16}-00"
    with (
        request_context(RequestContext(traceparent=caller)),
        entry_span("request", kind=SpanKind.SERVER, traceparent=caller),
    ):
        async with unit_of_work(database) as work:
            work.outbox.add("test.do")
            work.outbox.publish(Event("test.done"))
    broker = RecordingBroker()
    messages = build_unpublished_messages(database, redelivery=timedelta(minutes=10))
    await Relay(broker, messages, [TASK])._publish_batch()
    assert len(broker.messages) == 2
    assert {str(message.traceparent)[:36] for message in broker.messages} == {caller[:36]}
    assert {str(message.traceparent)[-2:] for message in broker.messages} == {"00"}
    assert spans.spans == []
    assert isinstance(broker.messages[0].id, UUID)
