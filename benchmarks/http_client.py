"""Measures the cost of a call by our client: `HttpClients.default` compared with a bare `httpx.AsyncClient`.

Both send the same request in turn, each over one open connection, to an upstream in a process of its own that answers
at once: nearly all of the time is the client's. Logs are written as in production, into /dev/null; the last row is
without them. Part of the difference is the pool, which is that of httpcore2 instead of httpcore: the second row.
"""

import asyncio
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Final, cast

import httpx
import uvloop
from prometheus_client import CollectorRegistry
from report import print_table

from tequipy_devstack.ports import free_port
from tequipy_observability import RequestContext, request_context
from tequipy_observability.wiring import ObservabilitySettings, configure_observability
from tequipy_platform.http import HttpSettings, build_http_clients
from tequipy_platform.http.connections import PooledTransport

BAR: Final = 1.15
ROUNDS: Final = 60
CALLS: Final = 50
_BODY: Final = b'{"items": [' + b"1234567890, " * 15 + b"0]}"
_RESPONSE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)

Call = Callable[[], Awaitable[httpx.Response]]


class Upstream(asyncio.Protocol):
    """Answers each request, which arrives in one piece, with the same response."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection."""
        self._transport = cast("asyncio.WriteTransport", transport)  # true of TCP connections

    def data_received(self, data: bytes) -> None:
        """Answer."""
        del data
        self._transport.write(_RESPONSE)


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def upstream() -> Iterator[str]:
    """Run the upstream in a process of its own; return its URL."""
    port = free_port()
    with subprocess.Popen([sys.executable, __file__, "upstream", str(port)]) as process:  # noqa: S603 -- this file
        try:
            yield f"http://127.0.0.1:{port}/prices"
        finally:
            process.terminate()


async def microseconds(call: Call) -> tuple[float, float]:
    """Return the average time of a call, and the processor time of this process for it."""
    began, spent = time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - began) / CALLS * 1e6, (time.process_time() - spent) / CALLS * 1e6


async def compare(url: str) -> list[tuple[object, ...]]:
    """Return a row for each client: microseconds of a call, of its processor time, and both compared with httpx."""
    names = ("httpx", "httpx over our pool", "ours", "ours, without its log line")
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    clients = build_http_clients(HttpSettings(), app_name="shop", app_version="1", registry=CollectorRegistry())
    log = logging.getLogger("tequipy_platform.http")
    bare = httpx.AsyncClient(timeout=httpx.Timeout(25, connect=5), trust_env=False)
    pool = PooledTransport(httpx.create_ssl_context(), httpx.Limits(max_connections=100), global_addresses=False)
    pooled = httpx.AsyncClient(timeout=httpx.Timeout(25, connect=5), transport=pool)
    async with bare, pooled, clients as http:
        calls: dict[str, Call] = dict(
            zip(
                names,
                (
                    lambda: bare.get(url),
                    lambda: pooled.get(url),
                    lambda: http.default.get(url),
                    lambda: http.default.get(url),
                ),
                strict=True,
            )
        )
        await _answering(calls["httpx"])
        with request_context(RequestContext(correlation_id="0123456789abcdef")):
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    log.setLevel(logging.ERROR if "without" in name else logging.INFO)
                    measured[name].append(await microseconds(call))
    return [
        (name, *map(statistics.median, zip(*values, strict=True)), *ratios(values, measured["httpx"]))
        for name, values in measured.items()
    ]


def ratios(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> tuple[float, ...]:
    """Return the median of the rounds' ratios, of time and of processor time."""
    pairs = [[mine / other for mine, other in zip(*pair, strict=True)] for pair in zip(ours, theirs, strict=True)]
    return tuple(map(statistics.median, zip(*pairs, strict=True)))


async def _answering(call: Call) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await call()
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
            else:
                return


def main() -> None:
    """Run the comparison and print its table."""
    configure_observability(ObservabilitySettings(), service="shop", environment="test", version="1")
    with upstream() as url, Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        rows = uvloop.run(compare(url))
    print_table(
        f"Cost of a call: {ROUNDS} rounds of {CALLS} calls each, medians; the bar is {BAR:.2f}",
        ["", "µs", "µs of CPU", "times httpx", "of CPU"],
        rows,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["upstream"]:
        uvloop.run(serve(int(sys.argv[2])))
    else:
        main()
