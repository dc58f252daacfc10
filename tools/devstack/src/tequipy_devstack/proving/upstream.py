"""A hostile upstream for tests of HTTP clients: it hangs, drips, resets and lies, by path.

`python -m tequipy_devstack.proving.upstream PORT` runs it as a process, which tests can kill and freeze.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from tequipy_devstack.proving.listener import Listener

DRIP_SECONDS: Final = 0.5
_BACKLOG_FILLERS: Final = 4


@dataclass
class Exchange:
    """One request, and the streams to answer it with."""

    method: str
    target: str
    headers: Mapping[str, str]
    """The header fields, with lower-case names."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_body(self) -> bytes:
        """Read the body that the request announces."""
        return await self.reader.readexactly(int(self.headers.get("content-length", "0")))

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()


Answer = Callable[[Exchange], Awaitable[bool]]
"""Answers a request, and returns whether the connection can be used for another one."""


def reply(status: int = 200, body: bytes = b"ok", **headers: str) -> Answer:
    """Answer with a whole response; a header field `Retry-After` is written `retry_after`."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()} | {"Content-Length": str(len(body))}

    async def answer(exchange: Exchange) -> bool:
        await exchange.read_body()
        await exchange.write(head(status, fields) + (b"" if exchange.method == "HEAD" else body))
        return True

    return answer


async def hang(exchange: Exchange) -> bool:
    """Send nothing until the client disconnects."""
    await exchange.reader.read()
    return False


async def never_read(_: Exchange) -> bool:
    """Send nothing, and read nothing of the request's body."""
    await asyncio.Event().wait()
    return False


async def hang_in_body(exchange: Exchange) -> bool:
    """Send a head and a part of the body."""
    await exchange.write(head(200, {"Content-Length": "100"}) + b"part")
    return await hang(exchange)


async def drip(exchange: Exchange) -> bool:
    """Send a body of one byte each half second, without end."""
    await exchange.write(head(200, {"Content-Length": "1000000"}))
    while True:
        await asyncio.sleep(DRIP_SECONDS)
        await exchange.write(b".")


async def drip_head(exchange: Exchange) -> bool:
    """Send a head of one byte each half second, without end."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        await asyncio.sleep(DRIP_SECONDS)
        await exchange.write(b".")


async def endless_head(exchange: Exchange) -> bool:
    """Send a header field without end, as fast as it is read."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        await exchange.write(b"." * 65536)


async def endless_hints(exchange: Exchange) -> bool:
    """Send informational responses without end (RFC 9110, section 15.2)."""
    while True:
        await exchange.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)


async def reset_in_head(exchange: Exchange) -> bool:
    """Reset the connection in the middle of the head."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    reset(exchange.writer)
    return False


async def reset_in_body(exchange: Exchange) -> bool:
    """Reset the connection in the middle of the body."""
    await exchange.write(head(200, {"Content-Length": "100"}) + b"part")
    reset(exchange.writer)
    return False


async def truncate(exchange: Exchange) -> bool:
    """Close the connection in the middle of the body."""
    await exchange.write(head(200, {"Content-Length": "100"}) + b"part")
    return False


async def redirect(exchange: Exchange) -> bool:
    """Redirect to another path of the same kind, without end."""
    path, _, number = exchange.target.partition("?")
    fields = {"Location": f"{path}?{int(number or 0) + 1}", "Content-Length": "0"}
    await exchange.write(head(302, fields))
    return True


ANSWERS: Final[Mapping[str, Answer]] = {
    "/ok": reply(),
    "/hang": hang,
    "/hang-in-body": hang_in_body,
    "/drip": drip,
    "/drip-head": drip_head,
    "/endless-head": endless_head,
    "/endless-hints": endless_hints,
    "/reset-in-head": reset_in_head,
    "/reset-in-body": reset_in_body,
    "/truncated": truncate,
    "/redirect": redirect,
    "/unread": never_read,
    "/503": reply(503),
}


class Upstream(Listener):
    """An HTTP/1.1 server on a port of 127.0.0.1 that answers by path; an async context manager.

    A path of `ANSWERS` has that answer; `route` sets others.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.requests: list[Exchange] = []
        self._routes: dict[str, list[Answer]] = {path: [answer] for path, answer in ANSWERS.items()}

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def route(self, path: str, *answers: Answer) -> str:
        """Answer the requests of a path with one answer after the other, the last one repeated; return its URL."""
        self._routes[path] = list(answers)
        return self.url + path

    async def serve_forever(self) -> None:
        """Answer until the process ends."""
        async with self:
            await asyncio.Event().wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while exchange := await _receive(reader, writer):
                self.requests.append(exchange)
                answers = self._routes.get(exchange.target.partition("?")[0]) or [reply(404)]
                if not await (answers.pop(0) if len(answers) > 1 else answers[0])(exchange):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has disconnected
        finally:
            writer.close()


async def _receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange | None:
    """Read the head of a request; None if the client has closed the connection."""
    with suppress(asyncio.IncompleteReadError):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        fields = (line.partition(":") for line in lines[1:] if line)
        headers = {name.strip().lower(): text.strip() for name, _, text in fields}
        return Exchange(method, target, headers, reader, writer)
    return None


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """Return the head of a response."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST, which the peer sees as a reset."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


@contextmanager
def unaccepting() -> Iterator[str]:
    """Return the base URL of a port whose connections are never established, because its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(_BACKLOG_FILLERS)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


if __name__ == "__main__":
    asyncio.run(Upstream(int(sys.argv[1])).serve_forever())
