"""The pool loses no connection, whenever a call is cancelled, and opens several at the same time."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tequipy_devstack.proving.certificates import Authority
from tequipy_platform.http import HttpClients, HttpProfile, HttpSettings, build_http_clients

PROFILE = HttpProfile(connect=5, read=10, total=20)


class Upstream:
    """A server with HTTP/1.1, which counts connections and may leave their TLS handshake unanswered."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.connections = 0
        self.stalled = False
        self.port = 0
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if self.stalled:
                await reader.read(65536)
                await asyncio.Event().wait()
            if self._tls is not None:
                await writer.start_tls(self._tls)
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Upstream"]:
        """Listen while the block lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


def clients(**settings: object) -> HttpClients:
    return build_http_clients(
        HttpSettings.model_validate({"default": PROFILE, "attempts": 1, **settings}), app_name="shop", app_version="1"
    )


@pytest.mark.parametrize("together", [1, 20])
async def test_a_call_may_be_cancelled_at_any_moment(together: int) -> None:
    """Calls that are cancelled after each number of steps of the event loop leave all connections usable."""
    async with Upstream().running() as upstream, clients(max_connections=5) as http:
        url = f"http://127.0.0.1:{upstream.port}/"
        for steps in range(60):
            calls = [asyncio.ensure_future(http.default.get(url)) for _ in range(together)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        pool = http.default._transport._transport._pool  # type: ignore[attr-defined]
        print(f"{60 * together} calls cancelled: {pool!r}")
        assert "Requests: 0 active, 0 queued | Connections: 0 active" in repr(pool)
        responses = await asyncio.gather(*(http.default.get(url) for _ in range(10)))
        assert {response.status_code for response in responses} == {200}


async def test_connections_with_http1_open_at_the_same_time(tmp_path: Path) -> None:
    """Calls to a server without HTTP/2 do not wait for each other's TLS handshakes."""
    authority = Authority(tmp_path / "authority")
    upstream = Upstream(authority.issue("127.0.0.1"))
    async with upstream.running(), clients(ca_file=authority.certificate) as http:
        url = f"https://127.0.0.1:{upstream.port}/"
        assert (await http.default.get(url)).http_version == "HTTP/1.1"
        upstream.stalled = True
        calls = [asyncio.ensure_future(http.default.post(url)) for _ in range(11)]
        async with asyncio.timeout(10):
            # One call uses the connection that is open.
            while upstream.connections < 11:
                await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
