"""The servers that tests run within their own event loop."""

import asyncio

import pytest

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
