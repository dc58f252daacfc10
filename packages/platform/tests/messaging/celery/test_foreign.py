"""Bodies in a queue that are no messages of ours end no worker and become dead letters, whatever they are."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.transport.virtual.base import Message
from redis import Redis

from tequipy_platform.messaging.celery.foreign import (
    MAX_BODY_BYTES,
    MAX_TEXT,
    accept_message,
    readable_item,
)
from tequipy_platform.messaging.celery.tasks import UNKNOWN_TASK
from tequipy_platform.messaging.message_log import FOREIGN_TASK

from .relaying import BuildWorker
from .worker_under_test import WorkerUnderTest

KNOWN = "test.note"
ID = "0195b6a5-0000-7000-8000-000000000001"
BODY = base64.b64encode(b"[[], {}, {}]").decode()


def envelope(task: object = KNOWN, *, body: object = BODY, **changes: object) -> dict[str, Any]:
    """Return a message as kombu stores it in Redis; `changes` replace or add headers and properties of that name."""
    headers = {"task": task, "id": ID, "lang": "py"}
    properties = {
        "delivery_tag": str(uuid4()),
        "delivery_info": {"exchange": "", "routing_key": "default"},
        "body_encoding": "base64",
        "priority": 0,
    }
    parts = {"body": body, "content-type": "application/json", "content-encoding": "utf-8"}
    for name, value in changes.items():
        place = parts if (key := name.replace("_", "-")) in parts else properties if name in properties else headers
        place[key if place is parts else name] = value
    return parts | {"headers": headers, "properties": properties}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def coded(body: str) -> str:
    return base64.b64encode(body.encode()).decode()


FOREIGN: dict[str, object] = {
    "an empty object": {},
    "an array": [1],
    "null": None,
    "without headers": {name: part for name, part in envelope().items() if name != "headers"},
    "headers that are no object": envelope() | {"headers": [1]},
    "without properties": envelope() | {"properties": None},
    "a delivery tag that is no text": envelope(delivery_tag=[1]),
    "without a route": envelope(delivery_info={}),
    "with a route that leads nowhere": envelope(delivery_info={"exchange": "none", "routing_key": "default"}),
    "with the route of another queue": envelope(delivery_info={"exchange": "", "routing_key": "email"}),
    "a body that is not base64": envelope(body="%%%"),
    "an unknown body encoding": envelope(body_encoding="rot13"),
    "compressed": envelope(compression="no-such"),
    "a body that is no JSON": envelope(body=coded("x")),
    "a body without keyword arguments": envelope(body=coded("[[]]")),
    "a body with callbacks": envelope(body=coded('[[], {}, {"callbacks": [{"task": "x"}]}]')),
    "a body nested too deeply": envelope(body=coded("[" * 10_000 + "]" * 10_000)),
    "pickle": envelope(content_type="application/x-python-serialize"),
    "an unknown encoding": envelope(content_encoding="no-such"),
    "an id that is no UUID": envelope(id="abc"),
    "an id that is a number": envelope(id=7),
    "without an id": envelope(id=None),
    "a task that is no text": envelope([KNOWN]),
    "without a task": envelope(None),
    "a tagged type of kombu": {"__type__": "uuid", "__value__": "zz"},
}
RAW = {"no JSON": b"garbage", "no UTF-8": b"\xff\xfe\x00", "1 MiB of garbage": b"x" * 1024 * 1024, "nothing": b""}
BODIES = RAW | {name: json.dumps(body).encode() for name, body in FOREIGN.items()}
HARMLESS = {
    "a time limit that is none": envelope(timelimit="x"),
    "due in a year": envelope(eta="2099-01-01T00:00:00"),
    "a time that is none": envelope(eta="x", expires=[1]),
    "expired long ago": envelope(expires="2001-01-01T00:00:00"),
    "callbacks in the headers": envelope(stamped_headers=["x"], stamps={"x": 1}, chord={"x": 1}),
    "a shadow name": envelope(shadow=[1], argsrepr={}, replaced_task_nesting="x", ignore_result="x"),
}


def foreign_letters(worker: WorkerUnderTest) -> list[str]:
    """Return the texts of the dead letters of foreign bodies, oldest first."""
    query = f"select error from platform.outbox where task = '{FOREIGN_TASK}' and state = 'dead' order by id"  # noqa: S608 -- our own name
    return worker.sql(query).splitlines()


def test_foreign_bodies_become_dead_letters_and_end_no_worker(worker: WorkerUnderTest) -> None:
    """Each of 29 foreign bodies is one dead letter that describes it, and the same child runs the next message."""
    with Redis.from_url(worker.broker_url) as redis:
        for body in BODIES.values():
            redis.lpush("default", body)
        worker.send("test.note", word="after")
        worker.until("note", within=60)
        until(lambda: redis.keys("unacked*") == [])
    texts = foreign_letters(worker)
    assert len(texts) == len(BODIES)
    assert all(text.startswith("foreign body, ") for text in texts)
    assert len(worker.events("opened")) == 1, "no child was replaced"
    assert worker.processes[0].poll() is None
    assert worker.sql("select distinct queue from platform.outbox where state = 'dead'").split() == ["default"]


def test_a_message_for_an_unknown_task_waits_for_a_newer_release(worker: WorkerUnderTest) -> None:
    """It reaches a child under its own id, which leaves its row to a newer release."""
    row_id = worker.send("auth.newer_task")
    row = worker.until_state(row_id, "failed")
    assert "auth.newer_task" in row["error"]
    assert foreign_letters(worker) == []


def test_headers_that_could_stop_or_drop_a_message_are_ignored(worker: WorkerUnderTest) -> None:
    """Delay, expiry, time limit, callbacks and names in the headers of a message neither end the worker nor lose it."""
    with Redis.from_url(worker.broker_url) as redis:
        for message in HARMLESS.values():
            row_id = worker.add("test.note", {"word": "x"})
            message["headers"] |= {"task": "test.note", "id": row_id}
            redis.lpush("default", json.dumps(message))
        worker.until("note", times=len(HARMLESS))


def test_a_foreign_body_can_return_to_its_queue(redis_url: str, build_worker: BuildWorker, tmp_path: Path) -> None:
    """A foreign body that a worker took and did not acknowledge returns to the queue, as a readable message."""
    celery = build_worker(redis_url, tmp_path)
    with Redis.from_url(redis_url) as redis, celery.connection_for_read() as connection:
        redis.lpush("default", b"garbage")
        received: list[Any] = []
        for _ in range(2):
            with connection.Consumer([celery.amqp.queues["default"]], on_message=received.append):
                connection.drain_events(timeout=10)
            received[-1].requeue()
        (item,) = redis.lrange("default", 0, -1)
    celery.close()
    assert isinstance(item, bytes)
    assert readable_item(item, "default") == item
    assert [message.headers["task"] for message in received] == [FOREIGN_TASK] * 2
    assert received[0].headers["id"] == received[1].headers["id"]


class Channel:
    """What kombu's message needs of its channel."""

    @staticmethod
    def decode_body(body: str, encoding: str) -> bytes:
        assert encoding == "base64"
        return base64.b64decode(body)


def received(item: bytes) -> Any:
    """Construct the message of an item, and accept it, as a worker does."""
    message = Message(json.loads(readable_item(item, "default")), channel=Channel())  # type: ignore[arg-type]  # -- all of a channel that it needs
    message.accept = {"application/json"}
    accept_message(message, {KNOWN, FOREIGN_TASK, UNKNOWN_TASK})
    return message


def check_accepted(item: bytes) -> None:
    """Assert that what a worker makes of an item is a message of a task with a UUID, and that the text is bounded."""
    message = received(item)
    assert message.headers["task"] in {KNOWN, FOREIGN_TASK, UNKNOWN_TASK}
    assert str(UUID(message.headers["id"])) == message.headers["id"].lower()
    assert message.headers.keys() <= {"lang", "task", "id", "tequipy_unknown_task", "traceparent"}
    arguments, payload, embedded = message.payload
    assert not any(embedded.values())
    if message.headers["task"] == FOREIGN_TASK:
        assert (arguments, payload.keys()) == ([], {"text"})
        assert len(payload["text"]) <= MAX_TEXT
        assert payload["text"].isascii()
        assert payload["text"].isprintable()


@given(st.binary())
@example(b"1" * 5000)
@example(b"x" * (MAX_BODY_BYTES + 1))
def test_any_bytes_become_a_message(item: bytes) -> None:
    """Whatever bytes stand in the queue, a worker makes a message of a known task of them."""
    check_accepted(item)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(ID),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.sampled_from(["task", "id", "lang", "compression", "timelimit", "traceparent", "tequipy_unknown_task"])
PLACES = st.sampled_from(["body", "content_type", "content_encoding", "delivery_tag", "delivery_info", "body_encoding"])


@given(st.dictionaries(HEADERS | PLACES, JSON, max_size=3), JSON)
def test_any_changed_message_becomes_a_message(changes: dict[str, object], body: object) -> None:
    """Whatever stands in a header, a property or the body of a message, a worker makes a message of a known task."""
    check_accepted(json.dumps(envelope(**changes)).encode())
    check_accepted(json.dumps(envelope(body=coded(json.dumps(body)))).encode())


@given(st.uuids(), st.text(max_size=20), st.integers(0, 9))
def test_a_message_of_ours_is_unchanged(task_id: UUID, correlation_id: str, attempts: int) -> None:
    """An item that Celery wrote is handed on byte for byte, with its id, our headers and its body."""
    sent = envelope(id=str(task_id), tequipy_correlation_id=correlation_id, tequipy_schema=attempts)
    item = json.dumps(sent).encode()
    assert readable_item(item, "default") == item
    message = received(item)
    assert message.headers == {
        "task": KNOWN,
        "id": str(task_id),
        "lang": "py",
        "tequipy_correlation_id": correlation_id,
        "tequipy_schema": attempts,
    }
    assert message.body == b"[[], {}, {}]"


@pytest.mark.parametrize(
    "item",
    [
        b"password=hunter2 sent by mistake",
        json.dumps({"password": "hunter2", "at": 1}).encode(),
        json.dumps(envelope("x", body=coded('[[], {"token": "hunter2"}, {"chain": 1}]'))).encode(),
        json.dumps(envelope(id="x", body=coded('[[], {"deep": {"secret": {"a": "hunter2"}}}, {}]'))).encode(),
        json.dumps({"body": coded('{"api_key":"hunter2"}')}).encode(),
        b'{"password":"hunter2", "cut of',
        json.dumps(envelope("x", body=coded('{"password": "hunter2"}' * 9), delivery_tag="password=x")).encode()[:600],
    ],
)
def test_the_text_about_a_foreign_body_holds_no_secret(item: bytes) -> None:
    """Named secrets are redacted, also within a body that is coded as base64, and the rest is shown."""
    message = received(item)
    assert message.headers["task"] == FOREIGN_TASK
    assert "hunter2" not in str(message.payload)
    assert "[redacted]" in message.payload[1]["text"]
