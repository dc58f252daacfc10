"""Measures refreshes of one API process with real rotation: each of several clients exchanges its token for the next.

The API is the shipped one, everything on. In turn, bcrypt alone hashes at the cost of refresh secrets, twice for each
refresh, in one thread: so much of the time is not ours.
"""

import asyncio
import json
import os
import statistics
import time
from typing import Final

import bcrypt
import psutil
import uvloop
from harness.testbed import migrated_deployment
from report import print_table

from tequipy_devstack.proving.traffic import ADMIN, PASSWORD

ROUNDS: Final = 7
SECONDS: Final = 4.0
CLIENTS: Final = 8
COST: Final = 4
_LOGIN: Final = {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}


class Client:
    """One client with a session of its own, on one connection."""

    async def open(self, port: int) -> None:
        """Connect and log in."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._token = await self._exchange("login", _LOGIN)

    async def refresh_until(self, ends: float) -> int:
        """Refresh again and again until the time has come; return how often."""
        count = 0
        while time.perf_counter() < ends:
            self._token = await self._exchange("refresh", {"refresh_token": self._token})
            count += 1
        return count

    async def _exchange(self, operation: str, content: dict[str, str]) -> str:
        body = json.dumps(content).encode()
        head = (
            f"POST /api/v1/auth/{operation} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if line)
        text = await self._reader.readexactly(int(fields[b"content-length"]))
        if b" 200 OK" not in answer:
            raise RuntimeError(text.decode())
        token: str = json.loads(text)["refresh_token"]
        return token


async def measure(port: int, process: psutil.Process) -> list[tuple[float, float, float]]:
    """Return a row for each round: refreshes a second, CPU milliseconds of the API for one, and of bcrypt alone."""
    clients = [Client() for _ in range(CLIENTS)]
    for client in clients:
        await client.open(port)
    rows = []
    for _ in range(ROUNDS):
        began, before = time.perf_counter(), process.cpu_times()
        count = sum(await asyncio.gather(*(client.refresh_until(began + SECONDS) for client in clients)))
        seconds, after = time.perf_counter() - began, process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        hashing, times = time.thread_time(), 50
        for _ in range(times):
            bcrypt.hashpw(b"a" * 43, bcrypt.gensalt(COST))
        rows.append((count / seconds, spent / count * 1000, 2 * (time.thread_time() - hashing) / times * 1000))
    return rows


def main() -> None:
    """Measure and print the table."""
    with migrated_deployment() as deployment, deployment.api() as api:
        rows = uvloop.run(measure(api.port, psutil.Process(api.pid)))
    a_second, api_cpu, bcrypt_cpu = ([row[column] for row in rows] for column in range(3))
    shown = [
        ("refreshes a second", a_second),
        ("CPU ms of the API for one", api_cpu),
        ("CPU ms of bcrypt alone for its two hashes", bcrypt_cpu),
        ("refreshes a second of CPU time", [1000 / each for each in api_cpu]),
    ]
    print_table(
        f"Refresh by {CLIENTS} clients, {ROUNDS} rounds of {SECONDS:g} s, {os.cpu_count()} cores",
        ["", "least", "median", "most"],
        [(name, min(values), statistics.median(values), max(values)) for name, values in shown],
    )


if __name__ == "__main__":
    main()
