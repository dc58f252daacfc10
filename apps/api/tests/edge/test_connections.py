"""The number of connections: which is closed over the limit, when a new one is refused, and the default limit."""

import asyncio
import resource

import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from tequipy_api.edge import connection_limit
from tequipy_api.settings import ApiSettings, ServerSettings

from .served import Client, request, served, until


async def test_the_connection_that_waited_longest_is_closed() -> None:
    """Over the limit, incomplete heads are closed first, then idle connections, then bodies, with one log line."""
    async with served(max_connections=6) as server:
        with capture_logs() as events:
            clients = [await server.connect() for _ in range(6)]
            body, idle, *silent = clients
            body.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
            await until(lambda: len(server.edge.tasks) == 1)
            idle.send(request("GET", "a", ""))
            await idle.answer()
            for one in silent:
                late = await server.connect()
                assert await one.end() == b""
                late.send(request("GET", "late", "") + b"POST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
                assert (await late.answer())[0] == 200
            await until(lambda: len(server.edge.tasks) == 5)
            busy = await server.connect()
            assert await idle.end() == b""
            busy.send(request("POST", "busy", "x")[:-1])
            await until(lambda: len(server.edge.tasks) == 6)
            await server.connect()
            status, fields, document = await body.answer()
            assert (status, document["code"], fields["retry-after"]) == (503, "unavailable", "1")
        limit = [event for event in events if event["event"] == "connection_limit_reached"]
        assert len(limit) == 1
        assert (limit[0]["limit"], limit[0]["log_level"]) == (6, "warning")
        assert server.refused("connection_evicted") == 6


async def test_lingering_connections_count_towards_the_limit() -> None:
    """Closed connections that linger are dropped first and do not count as freed slots."""
    async with served(max_connections=6) as server:
        clients: list[Client] = []
        for _ in range(60):
            clients.append(await server.connect())
            clients[-1].send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
            await until(lambda: len(server.edge.tasks) == min(len(clients), 6))
            if len(clients) > 6:
                assert (await clients[-7].answer())[0] == 503
            assert len(server.edge.connections) <= 6
        assert server.refused("connection_evicted") == 54


async def test_new_connections_are_refused_if_all_are_being_served() -> None:
    """If all connections are being served, a new one gets 503 with `Retry-After` at once, and the others continue."""
    app = FastAPI()
    go = asyncio.Event()

    async def wait(_: Request) -> Response:
        await go.wait()
        return JSONResponse({})

    app.add_route("/", wait)
    async with served(app, max_connections=2) as server:
        busy = [await server.connect() for _ in range(2)]
        for one in busy:
            one.send(request("GET", "", ""))
        await until(lambda: len(server.edge.tasks) == 2)
        for _ in range(3):
            late = await server.connect()
            status, fields, document = await late.answer()
            assert (status, document["code"], fields["retry-after"]) == (503, "unavailable", "1")
            assert await late.end() == b""
        go.set()
        assert [(await one.answer())[0] for one in busy] == [200, 200]
        assert server.refused("connection_refused") == 3


@pytest.mark.parametrize(
    ("files", "wanted", "limit"),
    [
        (1024, None, 881),
        (1_000_000, None, 4096),
        (resource.RLIM_INFINITY, None, 4096),
        (1024, 881, 881),
        (resource.RLIM_INFINITY, 100_000, 100_000),
        (1024, 882, r"should be at most 881: the process may open 1024 files \(ulimit -n\) and needs 143"),
        (100, None, "should be smaller than possible"),
    ],
)
def test_the_limit_leaves_files_for_the_process(
    settings: ApiSettings, monkeypatch: pytest.MonkeyPatch, files: int, wanted: int | None, limit: int | str
) -> None:
    """The default limit leaves files for database, Redis and others, whatever the operating system's limit is."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    settings = settings.model_copy(update={"server": ServerSettings(max_connections=wanted)})
    if isinstance(limit, int):
        assert connection_limit(settings) == limit
    else:
        with pytest.raises(ValueError, match=limit):
            connection_limit(settings)
