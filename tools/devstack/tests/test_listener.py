"""The servers that tests run within their own event loop."""

import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from tequipy_devstack.proving import Link, SmtpStub
from tequipy_devstack.proving.listener import Listener
from tequipy_devstack.proving.upstream import Upstream


@pytest.mark.parametrize("make", [lambda: Link(9), SmtpStub, Upstream], ids=["link", "smtp", "upstream"])
async def test_a_connection_whose_task_has_not_begun_is_closed(
    make: type[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that connects in the moment in which the server ends finds its connection closed."""
    server = make()
    accept = server._accept

    def accept_and_cancel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = asyncio.all_tasks()
        accept(reader, writer)
        for task in asyncio.all_tasks() - before:
            task.cancel()  # as the end of the context does

    monkeypatch.setattr(server, "_accept", accept_and_cancel)
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(10):
                await reader.readexactly(1)
        writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_is_closed_whenever_the_server_ends(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ends any number of turns of the event loop after a client has connected leaves no socket open."""
    warnings: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: warnings.append(unraisable.exc_value))

    async def end_after(turns: int) -> None:
        async with Upstream() as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            for _ in range(turns):
                await asyncio.sleep(0)
        with client:
            assert not server.connections
            client.setblocking(False)
            with suppress(ConnectionResetError):
                async with asyncio.timeout(10):
                    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""

    async def end_often() -> None:
        for turns in range(8):
            await end_after(turns)

    run(end_often())
    gc.collect()
    assert not warnings
