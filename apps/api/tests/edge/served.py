"""An app behind the edge in this process, and a client that sends bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response, StreamingResponse

from tequipy_api.edge import Edge
from tequipy_api.protocol import EdgeProtocol
from tequipy_api.settings import ServerSettings
from tequipy_observability.api import ObserveRequests
from tequipy_platform.web import CatchErrors, LimitBodies, Pipeline, SecurityHeaders, wire_errors

HEAD = b"GET /a HTTP/1.1\r\nHost: x\r\n"
LIMIT = 2048


def build_app() -> FastAPI:
    """Return an app that reports the requests it receives."""
    app = FastAPI(
        middleware=[
            Middleware(
                Pipeline,
                [
                    ObserveRequests(CollectorRegistry()),
                    SecurityHeaders(),
                    LimitBodies(),
                    CatchErrors(),
                ],
            )
        ]
    )
    wire_errors(app)

    async def flood(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65_536
                await asyncio.sleep(0)

        return StreamingResponse(pieces())

    async def echo(request: Request) -> Response:
        body = (await request.body()).decode()
        names = sorted(request.headers)
        return JSONResponse({"method": request.method, "path": request.url.path, "body": body, "fields": names})

    app.add_route("/flood", flood)
    app.add_route("/{path:path}", echo, methods=["GET", "POST", "PUT"])
    return app


class Client:
    """A connection, and the data received on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Send the data at once."""
        self.writer.write(data)

    async def send_pieces(self, data: bytes, cuts: list[int]) -> None:
        """Send the data in pieces, cut at these positions, that arrive separately."""
        places = sorted({cut % (len(data) + 1) for cut in cuts})
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            if self.writer.is_closing():
                return
            self.writer.write(data[start:end])
            await asyncio.sleep(0.001)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, header fields and JSON of the next response."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            fields = dict(line.split(": ", 1) for line in head.splitlines()[1:-1])
            body = await self.reader.readexactly(int(fields["content-length"]))
        return int(head.split()[1]), fields, json.loads(body)

    async def end(self) -> bytes:
        """Return all data until the server closes the connection."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class Served:
    """An app behind the edge in this process."""

    def __init__(self, edge: Edge, port: int, registry: CollectorRegistry) -> None:
        self.edge, self.port, self.registry = edge, port, registry
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    def refused(self, reason: str) -> float:
        """Return the number of refusals with this reason."""
        return self.registry.get_sample_value("http_edge_refusals_total", {"reason": reason}) or 0


async def until(holds: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(app: FastAPI | None = None, *, max_connections: int = 100, **bounds: float) -> AsyncIterator[Served]:
    """Serve an app with these limits."""
    registry = CollectorRegistry()
    server_settings = ServerSettings.model_validate({"max_head_size": LIMIT} | bounds)
    edge = Edge(server_settings, max_connections=max_connections, hsts=True, registry=registry)
    config = uvicorn.Config(app or build_app(), ws="none", log_config=None, access_log=False)

    async def sweep() -> None:
        while True:
            edge.sweep()
            await asyncio.sleep(0.01)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EdgeProtocol(config, edge, {}), "127.0.0.1", 0)
    sweeping = asyncio.create_task(sweep())
    run = Served(edge, server.sockets[0].getsockname()[1], registry)
    try:
        yield run
    finally:
        sweeping.cancel()
        for client in run.clients:
            client.writer.transport.abort()
        for connection in list(edge.connections):
            cast("EdgeProtocol", connection).transport.abort()
        server.close()


def request(method: str, path: str, body: str, *fields: bytes, chunks: int = 0) -> bytes:
    """Return the bytes of a request; with `chunks`, its body is chunked."""
    data = body.encode()
    head = [f"{method} /{path} HTTP/1.1".encode(), b"Host: x", *fields]
    if not chunks:
        return b"\r\n".join([*head, b"Content-Length: %d" % len(data), b"", data])
    size = max(1, len(data) // chunks)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    coded = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"\r\n".join([*head, b"Transfer-Encoding: chunked", b"", coded]) + b"0\r\nX-Trailer: y\r\n\r\n"
