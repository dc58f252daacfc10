"""Responses are written as uvicorn writes them, each in one piece."""

import asyncio
import logging
import socket
import threading
from typing import Any, cast

import pytest
import uvloop
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, Response
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tequipy_api.cycle import Cycle
from tequipy_api.writes import Turn, TurnTransport

from .served import served

NAMES = st.sampled_from(
    [
        b"content-type",
        b"Content-Length",
        b"content-length",
        b"Transfer-Encoding",
        b"connection",
        b"vary",
        b"Vary",
        b"x-a",
        b"set-cookie",
        b"bad name",
        b"date",
    ]
)
VALUES = st.sampled_from(
    [b"", b"0", b"2", b"5", b"chunked", b"Chunked", b"close", b"keep-alive, Close", b"a\tb", b"a\r\nb: c", b"\x00"]
) | st.binary(max_size=5)
HEADS = st.builds(
    lambda status, headers: {"type": "http.response.start", "status": status, "headers": headers},
    st.sampled_from([200, 201, 204, 304, 404, 500]),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
)
BODIES = st.builds(
    lambda body, more: {"type": "http.response.body", "body": body, "more_body": more},
    st.sampled_from([b"", b"ab", b"hello"]),
    st.booleans(),
)
SEQUENCES = st.tuples(HEADS, BODIES).map(list) | st.lists(HEADS | BODIES, max_size=4)


class Recording(asyncio.Transport):
    """A transport that records what is done to it."""

    def __init__(self, extra: dict[str, Any] | None = None) -> None:
        super().__init__(extra)
        self.done: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def write_eof(self) -> None:
        self.done.append(b"<eof>")

    def close(self) -> None:
        self.done.append(b"<close>")

    def abort(self) -> None:
        self.done.append(b"<abort>")

    def is_closing(self) -> bool:
        return b"<close>" in self.done or b"<abort>" in self.done


async def played(
    kind: type[RequestResponseCycle], messages: list[Any], method: str, *, keep_alive: bool, disconnected: bool
) -> tuple[object, ...]:
    """Return what a cycle writes for a sequence of messages, its errors and its state."""
    transport = Recording()
    answered: list[bool] = []
    cycle = kind(
        scope=cast("Any", {"type": "http", "method": method, "headers": []}),
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[(b"date", b"today")],
        message_event=asyncio.Event(),
        expect_100_continue=True,
        keep_alive=keep_alive,
        on_response=lambda: answered.append(True),
    )
    cycle.disconnected = disconnected
    errors = []
    for message in messages:
        try:
            await cycle.send(dict(message))  # type: ignore[arg-type]  # -- generated
        except Exception as error:  # noqa: BLE001 -- compared
            errors.append(repr(error))
    return (
        b"".join(transport.done),
        errors,
        answered,
        cycle.response_started,
        cycle.response_complete,
        cycle.keep_alive,
        cycle.chunked_encoding,
        cycle.waiting_for_100_continue,
        cycle.message_event.is_set(),
    )


@given(SEQUENCES, st.sampled_from(["GET", "HEAD", "POST"]), st.booleans(), st.booleans())
async def test_a_response_has_the_bytes_of_uvicorn(
    messages: list[Any], method: str, keep_alive: bool, disconnected: bool
) -> None:
    """Whatever an app sends, the bytes, the errors and the state of the connection are those of uvicorn's own code."""
    ours = await played(Cycle, messages, method, keep_alive=keep_alive, disconnected=disconnected)
    theirs = await played(RequestResponseCycle, messages, method, keep_alive=keep_alive, disconnected=disconnected)
    assert ours == theirs


async def test_writes_of_a_turn_leave_together() -> None:
    """What a connection writes in one turn is one write of its transport, in the next turn, and nothing before."""
    turn, loop, inner = Turn(), asyncio.get_running_loop(), [Recording(), Recording()]
    first, second = (TurnTransport(each, turn, loop) for each in inner)
    for _ in range(2):
        first.write(b"head")
        second.writelines([b"a", b"b"])
        first.write(b"body")
        assert not any(each.done for each in inner)
        await asyncio.sleep(0)
        assert [each.done for each in inner] == [[b"headbody"], [b"ab"]]
        for each in inner:
            each.done.clear()


@pytest.mark.parametrize(
    ("method", "done"),
    [("close", [b"last", b"<close>"]), ("write_eof", [b"last", b"<eof>"]), ("abort", [b"<abort>"])],
)
async def test_an_end_comes_after_what_was_written(method: str, done: list[bytes]) -> None:
    """`close` and `write_eof` send what is held first, `abort` discards it; nothing is written afterwards."""
    inner = Recording()
    transport = TurnTransport(inner, Turn(), asyncio.get_running_loop())
    transport.write(b"last")
    getattr(transport, method)()
    await asyncio.sleep(0)
    assert inner.done == done


async def test_much_is_not_held() -> None:
    """Over 64 KiB are passed on at once, so that the transport can pause the writer of a large response."""
    inner = Recording()
    transport = TurnTransport(inner, Turn(), asyncio.get_running_loop())
    transport.write(b"x" * 65_000)
    assert inner.done == []
    transport.write(b"y" * 1000)
    assert [len(each) for each in inner.done] == [66_000]


def test_a_response_is_sent_although_the_client_sends_nothing_more() -> None:
    """A client that ends its side while the response is held gets it: uvloop closes such a connection before the turn
    ends."""

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            serving.wait(20)
            connection.shutdown(socket.SHUT_WR)
            ended.set()
            return connection.makefile("rb").read()

    async def answer(_: Request) -> Response:
        serving.set()
        ended.wait(20)  # blocks the event loop, so that the end arrives in the turn of the response
        return PlainTextResponse("done")

    async def run() -> bytes:
        async with served(app) as server:
            return await asyncio.to_thread(ask, server.port)

    app = FastAPI()
    app.add_route("/", answer)
    serving, ended = threading.Event(), threading.Event()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        response = runner.run(run())
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\ndone")
