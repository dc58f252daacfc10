"""Measures the cost of the outbox: the shipped relay compared with Celery's `send_task`, and its latency at rest.

The relay is a separate process between a real PostgreSQL and a real broker without consumers. For the rate, rows are
committed before the relay starts; for the latency, one row at a time while it waits.
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
from pathlib import Path
from typing import Final

from celery import Celery
from observability import variables_of
from pydantic import SecretStr
from redis import Redis
from report import print_table

from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_platform import SystemClock
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

MESSAGES: Final = 5_000
AT_REST: Final = 200
ROUNDS: Final = 3
QUEUE: Final = "default"
PAYLOAD: Final = {"user_id": "01a2066c-5219-712e-a8b5-b55ef1bcfe55", "template": "verify_email"}
RATE_BAR: Final = 1_000
TIME_BAR: Final = 50


def send_straight(broker_url: str) -> float:
    """Return how many messages per second Celery publishes in a loop."""
    with Celery("bench", broker=broker_url, set_as_current=False) as celery:
        began = time.perf_counter()
        for _ in range(MESSAGES):
            celery.send_task("bench.nothing", kwargs=PAYLOAD, queue=QUEUE, ignore_result=True)
        return MESSAGES / (time.perf_counter() - began)


@contextmanager
def relay(variables: dict[str, str]) -> Iterator[None]:
    """Run the relay until the block ends."""
    command = [str(Path(sys.executable).with_name("tequipy-worker")), "relay"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TEQUIPY_")}
    with tempfile.TemporaryDirectory() as state:
        environment |= {"TEQUIPY_WORKER__STATE_FOLDER": state, **variables}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:  # noqa: S603 -- our own command
            try:
                yield
            finally:
                process.terminate()


async def commit(database: Database, messages: int) -> None:
    """Commit the given number of rows in one transaction."""
    async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
        for _ in range(messages):
            work.outbox.add("bench.nothing", user_id=PAYLOAD["user_id"], template=PAYLOAD["template"])


async def drain(database: Database, redis: Redis, variables: dict[str, str]) -> float:
    """Return how many waiting messages per second a relay publishes."""
    await commit(database, MESSAGES)
    with relay(variables):
        rate = await asyncio.to_thread(watch, redis)
    redis.flushdb()
    return rate


def watch(redis: Redis) -> float:
    """Return how many messages per second arrive, from the first batch to the last."""
    while not (first := redis.llen(QUEUE)):
        time.sleep(0.001)
    began = time.perf_counter()
    while (last := redis.llen(QUEUE)) < MESSAGES:
        time.sleep(0.001)
    return float((last - first) / (time.perf_counter() - began))


async def rest(database: Database, redis: Redis, variables: dict[str, str]) -> list[float]:
    """Return the milliseconds from a commit to its message, for a relay that waits for work."""
    times = []
    with relay(variables):
        await commit(database, 1)
        await asyncio.to_thread(redis.blpop, [QUEUE])  # returns when the message has arrived
        for _ in range(AT_REST):
            await asyncio.sleep(0.02)
            await commit(database, 1)
            began = time.perf_counter()
            await asyncio.to_thread(redis.blpop, [QUEUE])
            times.append((time.perf_counter() - began) * 1000)
    return times


async def measure(database_url: str, broker_url: str, variables: dict[str, str]) -> None:
    """Measure everything and print the table."""
    async with build_database(DatabaseSettings(url=SecretStr(database_url))) as database:
        with Redis.from_url(broker_url, socket_timeout=60) as redis:
            straight, relayed = [], []
            for _ in range(ROUNDS):
                straight.append(send_straight(broker_url))
                redis.flushdb()
                relayed.append(await drain(database, redis, variables))
            times = await rest(database, redis, variables)
    print_table(
        f"Messages a second: {ROUNDS} rounds of {MESSAGES:,}, medians; the bar is {RATE_BAR:,} for a relay",
        ["", "messages a second"],
        [
            ("`send_task`, straight to the broker", statistics.median(straight)),
            ("committed rows, by one relay", statistics.median(relayed)),
            ("ratio", statistics.median(ours / theirs for ours, theirs in zip(relayed, straight, strict=True))),
        ],
    )
    print_table(
        f"From commit to enqueued, at rest: {AT_REST} rows, one at a time; the bar is {TIME_BAR} ms",
        ["", "ms"],
        [("p50", statistics.median(times)), ("p99", statistics.quantiles(times, n=100)[98])],
    )


def main() -> None:
    """Start the servers and run the comparison."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgres = stack.enter_context(PostgresServer(Path(folder) / "postgres"))
        valkey = stack.enter_context(ValkeyServer(Path(folder) / "valkey"))
        broker_url = valkey.url(1)
        variables = variables_of(postgres, valkey, folder) | {"TEQUIPY_CELERY__BROKER_URL": broker_url}
        asyncio.run(measure(variables["TEQUIPY_DATABASE__URL"], broker_url, variables))


if __name__ == "__main__":
    main()
