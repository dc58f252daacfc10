"""Access events: the same lines as structlog's, put together in one step and written by turns of the event loop."""

import asyncio
import json
import logging
import threading

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tequipy_observability import RequestContext, request_context
from tequipy_observability.logging import AccessLog, Process, access_log, configure_logging
from tequipy_observability.logging.output import Output

from ..log_lines import Lines

pytestmark = pytest.mark.usefixtures("restored_logging")

SECRETS = (
    "eyJhbGciOiJIUzI1NiJ9.e30.x",
    "eyJhbGciOiJIUzI1NiJ9",
    f"rt1.{'a' * 22}.{'b' * 43}",
    f"ev1.{'a' * 22}.{'b' * 43}",
    "https://u:hunter2@example.com",
    "Bearer abcdefghij",
    "Basic abcdefghij",
    "password=hunter2",
    "token: hunter2",
    "'api_key': 'hunter2'",
    'x"secret": "hunter2"',
    "session-cookie=1\nx",
)
TEXTS = st.text(st.characters()) | st.sampled_from(SECRETS) | st.text('eyJ=:/. Bearpswdo"\\\n', max_size=40)
TRACES = st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
CONTEXTS = st.builds(
    RequestContext,
    correlation_id=st.none() | TEXTS | st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True),
    traceparent=st.none() | TRACES,
    method=st.none() | st.sampled_from(["GET", "POST"]) | TEXTS,
    route=st.none() | TEXTS,
    ip=st.none() | st.just("192.0.2.1") | TEXTS,
    user_agent=st.none() | st.just("curl/8") | TEXTS | TEXTS.map(lambda text: text * 500),
    user_id=st.none() | TEXTS,
    task_id=st.none() | TEXTS,
    task_name=st.none() | TEXTS,
)


def without_time(line: bytes) -> bytes:
    """Return a line without its first field, the timestamp."""
    assert line.startswith(b'{"timestamp":"')
    return line.partition(b",")[2]


class Kept(Output):
    """An output that keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def msg(self, line: bytes) -> None:
        self.lines.append(line)

    debug = info = warning = error = msg


@given(
    CONTEXTS,
    st.sampled_from([logging.DEBUG, logging.INFO, logging.ERROR]),
    TEXTS,
    st.integers(100, 599),
    st.floats(0, 1e6),
    st.sampled_from(["1.0", "token=x", "eyJhbGciOiJIUzI1NiJ9"]),
)
@example(RequestContext(correlation_id="a" * 32, user_agent="curl/8"), logging.INFO, "/x", 200, 1.5, "1.0")
def test_a_line_equals_that_of_structlog(
    context: RequestContext, level: int, route: str, status: int, duration_ms: float, version: str
) -> None:
    """Whatever clients send, the line has the same bytes as structlog's, redaction and shortening included."""
    configure_logging(Process("test", "test", version), level="DEBUG", style="json")
    log, kept = access_log(), Kept()
    assert log is not None
    structlog.configure(logger_factory=lambda *_: kept)
    with request_context(context):
        structlog.get_logger(logger_name="tequipy.access").log(
            level,
            "http_request",
            route=route,
            status=status,
            duration_ms=duration_ms,
            user_agent=context.user_agent,
        )
    line = log.render(level, context, route=route, status=status, duration_ms=duration_ms)
    assert without_time(line) == without_time(kept.lines[0])


def write(level: int, status: int) -> None:
    """Write an access event."""
    log = access_log()
    assert isinstance(log, AccessLog)
    log.write(level, RequestContext("a" * 32), route="/x", status=status, duration_ms=1.0)


@pytest.mark.usefixtures("lines")
async def test_lines_of_one_turn_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of a turn of the loop leave in one write when it ends; the next turn has another one."""
    writes: list[bytes] = []
    monkeypatch.setattr("tequipy_observability.logging.output._write", writes.append)
    for turn in range(2):
        for status in (200, 404):
            write(logging.INFO, status)
        assert len(writes) == turn
        await asyncio.sleep(0)
    assert [[json.loads(line)["status"] for line in each.splitlines()] for each in writes] == [[200, 404]] * 2


@pytest.mark.usefixtures("lines")
async def test_errors_and_warnings_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or warning is written before the turn ends, and all lines that wait are written before it."""
    writes: list[bytes] = []
    monkeypatch.setattr("tequipy_observability.logging.output._write", writes.append)
    write(logging.INFO, 200)
    write(logging.ERROR, 500)
    write(logging.INFO, 201)
    logging.getLogger("other").warning("other")
    found = [[json.loads(line).get("status") for line in each.splitlines()] for each in writes]
    assert found == [[200, 500], [201, None]]


@pytest.mark.usefixtures("lines")
def test_without_a_loop_a_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread without an event loop waits for no turn, and neither does one whose loop was closed in between."""
    writes: list[bytes] = []
    monkeypatch.setattr("tequipy_observability.logging.output._write", writes.append)
    write(logging.INFO, 200)
    assert len(writes) == 1

    async def write_last() -> None:
        write(logging.INFO, 201)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(write_last())
    loop.close()
    asyncio.run(write_and_wait())
    assert [json.loads(line)["status"] for each in writes[1:] for line in each.splitlines()] == [201, 202]


async def write_and_wait() -> None:
    write(logging.INFO, 202)
    await asyncio.sleep(0)


async def test_threads_lose_no_line(lines: Lines) -> None:
    """Lines of other threads and of the loop are each written once."""

    def warn() -> None:
        for _ in range(200):
            logging.getLogger("thread").warning("x")

    threads = [threading.Thread(target=warn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        write(logging.INFO, 200)
        await asyncio.sleep(0)
    for thread in threads:
        thread.join()
    found = [line["message"] for line in lines()]
    assert (found.count("x"), found.count("http_request")) == (800, 200)


def test_a_level_below_that_of_the_process_is_not_written(lines: Lines) -> None:
    """The events of polled routes have level DEBUG, which is off by default."""
    write(logging.DEBUG, 200)
    assert lines() == []


def test_another_configuration_of_structlog_is_respected(lines: Lines) -> None:  # noqa: ARG001 -- configures JSON
    """In console style, and while structlog is configured otherwise, access events go through structlog."""
    assert access_log() is not None
    with capture_logs():
        assert access_log() is None
    assert access_log() is not None
    configure_logging(Process("test", "local", "1"), level="INFO", style="console")
    assert access_log() is None
