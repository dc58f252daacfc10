"""The range API of Have I Been Pwned in memory, and local servers in its place that answer wrongly or never."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from tequipy_platform.testing.http import MemoryUpstreams

URL = "https://hashes.example.com"
BREACHED = "a password of a data leak"


def sha1(password: str) -> str:
    return hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()


def range_of(prefix: str, passwords: Sequence[str], *, count: int = 7) -> bytes:
    """Return the lines of a prefix: the passwords that have it, between a breached one and padding."""
    found = [sha1(password)[5:] for password in passwords if sha1(password).startswith(prefix)]
    lines = [f"{'0' * 35}:12", *(f"{suffix}:{count}" for suffix in found), f"{'F' * 35}:0"]
    return "\r\n".join(lines).encode()


def serve_ranges(*passwords: str) -> MemoryUpstreams:
    """Return upstreams with an API that knows these passwords."""
    upstreams = MemoryUpstreams()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=range_of(request.url.path.rpartition("/")[2], passwords))

    upstreams.route(f"GET {URL}/range/?????", answer)
    return upstreams


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def local_server(behaviour: Behaviour) -> AsyncIterator[str]:
    """Serve connections on this machine; yields the URL."""
    connections = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
        except OSError:
            pass  # the client has gone
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def sends(response: bytes) -> Behaviour:
    """Return the behaviour of a server that answers each connection with these bytes, and closes it."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()

    return behave


def http(status: str, body: bytes = b"", *fields: str) -> bytes:
    """Return a response."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields])
    return head.encode() + b"\r\n\r\n" + body


async def knows_the_password(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request correctly, as an API that knows the password `BREACHED`."""
    line, _, _ = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
    prefix = line.decode().split(" ")[1].rpartition("/")[2]
    writer.write(http("200 OK", range_of(prefix, [BREACHED])))
    await writer.drain()


async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Accept the connection and say nothing."""
    await asyncio.Event().wait()


async def hang_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a part of a range that contains the password."""
    await sends(http("200 OK", range_of(sha1(BREACHED)[:5], [BREACHED]))[:-5])(reader, writer)
    await asyncio.Event().wait()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a correct response, a byte each tenth of a second."""
    await reader.readuntil(b"\r\n\r\n")
    for byte in http("200 OK", range_of(sha1(BREACHED)[:5], [BREACHED])):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def drip_early_hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send interim responses without end."""
    await reader.readuntil(b"\r\n\r\n")
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def send_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send lines of a range as fast as they are read."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        writer.write(b"0" * 35 + b":1\r\n")
        await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the connection by a reset (RFC 9293, section 3.5.2)."""
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
