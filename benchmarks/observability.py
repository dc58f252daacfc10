"""Measures the cost of all middleware: `/health` of the shipped app compared with a typed route of a bare app.

Both are served by uvicorn (uvloop, httptools) in processes of their own, and requested in turn by one client over the
same number of open connections. Throughput is what a client sees; the CPU time of the server process per request is the
steadier figure on a machine with other load.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast

import psutil
import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel
from report import print_table

from tequipy_devstack.ports import free_port
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.tables import create_tables

BAR: Final = 0.80
ROUNDS: Final = 15
SECONDS: Final = 1.0
CONNECTIONS: Final = 16
PATH: Final = "/api/v1/health"
_REQUEST: Final = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n".encode()


class Health(BaseModel):
    """The response of both routes."""

    status: Literal["ok"] = "ok"


def build_bare() -> FastAPI:
    """Return an app with one typed route and no middleware."""
    app = FastAPI()

    @app.get(PATH)
    async def health() -> Health:
        return Health()

    return app


@dataclass
class Server:
    """One of the two servers with its measurements."""

    name: str
    port: int
    process: psutil.Process
    throughput: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


class Caller(asyncio.Protocol):
    """Sends the next request as soon as it has the response, until it is stopped."""

    def __init__(self) -> None:
        self.answers = 0
        self.asking = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # true of TCP connections
        self._transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count a response by the last byte of its body, and send the next request."""
        if data.endswith(b"}"):
            self.answers += 1
            if self.asking and self._transport is not None:
                self._transport.write(_REQUEST)


async def measure(server: Server, seconds: float) -> None:
    """Send requests to one server, and record responses per second and microseconds of CPU time per response."""
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(Caller, "127.0.0.1", server.port) for _ in range(CONNECTIONS)]
    callers = [caller for _, caller in pairs]
    began, spent = time.perf_counter(), server.cpu_seconds()
    await asyncio.sleep(seconds)
    for caller in callers:
        caller.asking = False
    answers = sum(caller.answers for caller in callers)
    server.throughput.append(answers / (time.perf_counter() - began))
    server.cpu.append((server.cpu_seconds() - spent) / answers * 1e6)
    for transport, _ in pairs:
        transport.close()


@contextmanager
def running(name: str, command: list[str | Path], port: int, variables: dict[str, str]) -> Iterator[Server]:
    """Run a server process until the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    with subprocess.Popen(command, env=environment | variables, stdout=subprocess.DEVNULL) as process:  # noqa: S603 -- our own command
        try:
            yield Server(name, port, psutil.Process(process.pid))
        finally:
            process.terminate()


def variables_of(postgres: PostgresServer, valkey: ValkeyServer, folder: str) -> dict[str, str]:
    """Return the settings of a deployed API, and create its tables."""
    create_tables(database_url := postgres.create_database("tequipy"))
    return {
        "TEQUIPY_ENVIRONMENT": "test",
        "TEQUIPY_PUBLIC_URL": "https://app.example.com",
        "TEQUIPY_DATABASE__URL": database_url,
        "TEQUIPY_CACHE__URL": valkey.url(),
        "TEQUIPY_STORAGE__URL": Path(folder).as_uri(),
    }


async def compare(bare: Server, whole: Server) -> None:
    """Measure both in turn, so that other load of the machine affects both alike."""
    for server in (bare, whole):
        await _answering(server.port)
        await measure(server, SECONDS)  # a warm-up, whose result is discarded
        server.throughput.clear()
        server.cpu.clear()
    for _ in range(ROUNDS):
        for server in (bare, whole):
            await measure(server, SECONDS)


async def _answering(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def main() -> None:
    """Run the comparison and print its table."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgres = stack.enter_context(PostgresServer(Path(folder) / "postgres"))
        valkey = stack.enter_context(ValkeyServer(Path(folder) / "valkey"))
        variables = variables_of(postgres, valkey, folder)
        first, second = free_port(), free_port()
        bare_command: list[str | Path] = [sys.executable, __file__, "bare", str(first)]
        whole_command: list[str | Path] = [
            Path(sys.executable).with_name("tequipy-api"),
            "serve",
            "--port",
            str(second),
        ]
        bare = stack.enter_context(running("bare typed route", bare_command, first, {}))
        whole = stack.enter_context(running("/health of the app", whole_command, second, variables))
        uvloop.run(compare(bare, whole))
    throughput = statistics.median(
        ours / theirs for ours, theirs in zip(whole.throughput, bare.throughput, strict=True)
    )
    cpu = statistics.median(theirs / ours for ours, theirs in zip(whole.cpu, bare.cpu, strict=True))
    rows = [(each.name, statistics.median(each.throughput), statistics.median(each.cpu)) for each in (bare, whole)]
    print_table(
        f"Cost of observability: {ROUNDS} rounds of {SECONDS:g} s each, medians; the bar is {BAR:.2f}",
        ["", "requests a second", "µs of CPU a request"],
        [*rows, ("share (median of rounds' ratios)", throughput, cpu)],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        uvicorn.run(
            build_bare(),
            port=int(sys.argv[2]),
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
        )
    else:
        main()
