"""Measures logins compared with bcrypt alone, and `/health` beside 30 parallel logins compared with `/health` alone.

The API is the shipped one, everything on, with hashes at the cost of production, behind a trusted proxy: each of 30
accounts logs in from an address of its own, without a pause. bcrypt alone checks the same hashes in as many
threads as there are cores. All alternate, so that other load of the machine affects all alike. Logins share the cores
with their database and this client; the CPU time of the API for one login is the steadier figure.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from operator import truediv
from pathlib import Path
from typing import Final

import bcrypt
import psutil
import uvloop
from harness.testbed import databases
from report import print_table

from tequipy_devstack.proving import Api, Deployment
from tequipy_devstack.proving.traffic import PASSWORD

ROUNDS: Final = 5
SECONDS: Final = 6.0
ACCOUNTS: Final = [f"user{number}@example.com" for number in range(30)]
COST: Final = 12
PROBES: Final = 100
"""Requests of `/health` a second."""
_COPY_ACCOUNT: Final = """
    insert into auth.users (id, email, canonical_email, email_verified, roles, version, created_at,
        password_scheme, password_cost, password_pepper_version, password_digest)
    select gen_random_uuid(), address, address, true, roles, version, created_at,
        password_scheme, password_cost, password_pepper_version, password_digest
    from auth.users, (select format('user%s@example.com', number) as address from generate_series(0, 29) as number) as a
"""
"""Makes the accounts of `ACCOUNTS` from the administrator, because hashing thirty passwords takes long."""
_HEALTH: Final = b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> bytes:
    """Send a request over an open connection and return the status line of the response."""
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    await reader.readexactly(int(fields[b"content-length"]))
    return head.partition(b"\r\n")[0]


def login_of(number: int, email: str) -> bytes:
    """Return the request of a login from an address that belongs to this account."""
    body = json.dumps({"email": email, "password": PASSWORD, "token_delivery": "body"}).encode()
    head = (
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Forwarded-For: 198.51.100.{number + 1}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def log_in(port: int, content: bytes, ends: float) -> tuple[int, int]:
    """Log in again and again until the time has come; return how many logins ended before it, and how many at all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    in_time = count = 0
    while time.perf_counter() < ends:
        status = await request(reader, writer, content)
        if not status.endswith(b"200 OK"):
            raise RuntimeError(status.decode())
        count += 1
        in_time += time.perf_counter() < ends
    writer.close()
    return in_time, count


async def probe(port: int, ends: float) -> float:
    """Request `/health` at a constant rate; return the p99 in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    durations, began = [], time.perf_counter()
    while (now := time.perf_counter()) < ends:
        await request(reader, writer, _HEALTH)
        durations.append((time.perf_counter() - now) * 1000)
        await asyncio.sleep(max(0.0, began + len(durations) / PROBES - time.perf_counter()))
    writer.close()
    return statistics.quantiles(durations, n=100)[98]


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU time that processes and their children have used."""
    found = {each for process in processes for each in (process, *process.children(recursive=True))}
    return sum(sum(each.cpu_times()[:2]) for each in found)


async def measure(port: int, processes: Sequence[psutil.Process], *, logins: bool) -> tuple[float, float, float, float]:
    """Return logins a second, CPU seconds of each process for one, and the p99 of `/health` meanwhile.

    The first process is the API; the second figure is the sum of all.
    """
    ends = time.perf_counter() + SECONDS
    before = cpu_seconds(processes[:1]), cpu_seconds(processes)
    callers = [log_in(port, login_of(number, email), ends) for number, email in enumerate(ACCOUNTS) if logins]
    probing = asyncio.create_task(probe(port, ends))
    counts = await asyncio.gather(*callers)
    slowest = await probing
    after = cpu_seconds(processes[:1]), cpu_seconds(processes)
    in_time, count = (sum(column) for column in zip(*counts, strict=True)) if logins else (0, 1)
    return in_time / SECONDS, (after[0] - before[0]) / count, (after[1] - before[1]) / count, slowest


def hash_alone() -> tuple[float, float]:
    """Return checks a second of bcrypt in as many threads as cores, and CPU seconds for each."""
    digest = bcrypt.hashpw(b"a" * 44, bcrypt.gensalt(COST))
    cores, ends, spent = os.cpu_count() or 1, time.perf_counter() + SECONDS, time.process_time()

    def check() -> tuple[int, int]:
        in_time = count = 0
        while time.perf_counter() < ends:
            bcrypt.checkpw(b"a" * 44, digest)
            count += 1
            in_time += time.perf_counter() < ends
        return in_time, count

    with ThreadPoolExecutor(cores) as pool:
        counts = [each.result() for each in [pool.submit(check) for _ in range(cores)]]
    in_time, count = (sum(column) for column in zip(*counts, strict=True))
    return in_time / SECONDS, (time.process_time() - spent) / count


@contextmanager
def running(folder: Path) -> Iterator[tuple[Api, list[psutil.Process]]]:
    """Run the API with thirty verified accounts; yield it, and all processes that work for logins, it first."""
    with ExitStack() as stack:
        postgres, valkey, mails = stack.enter_context(databases(folder))
        deployment = Deployment(
            folder,
            database_url=postgres.create_database("tequipy"),
            redis=valkey,
            mails=mails,
            TEQUIPY_AUTH__BCRYPT_COST=str(COST),
            TEQUIPY_AUTH__HASHING_PRIORITY="idle",  # as in the image
            TEQUIPY_TRUSTED_PROXIES='["127.0.0.0/8"]',
            TEQUIPY_RATE_LIMITS__LOGIN="60/60",
        )
        deployment.migrate()
        deployment.create_admin()
        postgres.execute(_COPY_ACCOUNT, "tequipy")
        api = stack.enter_context(deployment.api())
        servers = [child for child in psutil.Process().children() if child.pid != api.pid]
        yield api, [psutil.Process(api.pid), *servers, psutil.Process()]


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as (api, processes):
        rounds = []
        for _ in range(ROUNDS):
            resting = uvloop.run(measure(api.port, processes, logins=False))
            rounds.append((*hash_alone(), *uvloop.run(measure(api.port, processes, logins=True)), resting[-1]))
    columns = [list(column) for column in zip(*rounds, strict=True)]
    hashes, hash_cpu, logins, api_cpu, all_cpu, beside, alone = columns
    rows = [
        (name, statistics.median(one), statistics.median(other), statistics.median(map(truediv, *order)))
        for name, one, other, order in (
            ("a second", hashes, logins, (logins, hashes)),
            ("CPU seconds of one: API", hash_cpu, api_cpu, (hash_cpu, api_cpu)),
            ("CPU seconds of one: with database, Redis and client", hash_cpu, all_cpu, (hash_cpu, all_cpu)),
            ("p99 of /health in ms: alone, beside logins", alone, beside, (beside, alone)),
        )
    ]
    print_table(
        f"30 parallel logins, {ROUNDS} rounds of {SECONDS:g} s each, medians",
        ["", "bcrypt alone", "logins", "ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
