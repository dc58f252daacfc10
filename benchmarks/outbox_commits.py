"""Measures the cost of waking the relay: commits per second without it, by a trigger, and as the unit of work does it.

Each commit has one business row and one outbox row. The server commits to a synchronous standby that streams through a
link of 5 ms, so that a lock which is held through the commit is held for as long as in a production with two zones.
Clients are spread over up to four processes, and one connection listens, as a relay does.
"""

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from report import print_table
from sqlalchemy import text

from tequipy_devstack.proving.network import Link, in_background
from tequipy_devstack.proving.waiting import eventually
from tequipy_devstack.servers import PostgresServer
from tequipy_devstack.tables import create_tables
from tequipy_platform import SystemClock
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork

CLIENTS: Final = (1, 8, 32)
CLIENTS_PER_PROCESS: Final = 8
SECONDS: Final = 4.0
ROUNDS: Final = 3
DELAY: Final = 0.005
_WARM_UP_SECONDS: Final = 3.0
_NAME: Final = "bench"

_TABLE: Final = "CREATE TABLE orders (id uuid PRIMARY KEY, item text NOT NULL)"
# The trigger of migration 0001, which notified within the commit until migration 0007.
_TRIGGER: Final = """
CREATE OR REPLACE FUNCTION platform.notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tequipy_outbox', TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER notify_outbox AFTER INSERT ON platform.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION platform.notify_outbox();
"""
_NO_TRIGGER: Final = "DROP TRIGGER IF EXISTS notify_outbox ON platform.outbox"


class SilentDatabase(Database):
    """A database that never notifies."""

    def notify(self, channel: str, payload: str) -> None:
        """Do nothing."""


CANDIDATES: Final[dict[str, tuple[str, type[Database]]]] = {
    "no wake-up": (_NO_TRIGGER, SilentDatabase),
    "NOTIFY by a trigger, in the commit": (_TRIGGER, SilentDatabase),
    "NOTIFY after the commit, by the unit of work": (_NO_TRIGGER, Database),
}


@contextmanager
def replicated_postgres(folder: Path) -> Iterator[PostgresServer]:
    """Yield a server that commits to a synchronous standby behind a slow link."""
    primary = PostgresServer(folder / "primary")
    with primary:
        create_tables(primary.create_database(_NAME))
        primary.execute(_TABLE, database=_NAME)
    standby = primary.copy_to(folder / "standby")
    with primary, in_background(Link(primary.port)) as link:
        link.delay = DELAY
        signal, settings = standby.data / "standby.signal", standby.data / "postgresql.auto.conf"
        signal.touch()
        shutil.chown(signal, settings.owner(), settings.group())
        address = f"host=127.0.0.1 port={link.port} user=postgres password={primary.password}"
        with settings.open("a") as lines:
            lines.write(f"primary_conninfo = '{address}'\n")
        with standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            states = "SELECT sync_state FROM pg_stat_replication"
            eventually("the standby is synchronous", lambda: primary.execute(states).strip() == "sync")
            yield primary
            # The standby stops first, and a commit would wait for it without end.
            primary.execute("ALTER SYSTEM RESET synchronous_standby_names")
            primary.execute("SELECT pg_reload_conf()")


async def commit_until(database: Database, end: float) -> list[float]:
    """Commit one transaction after the other until `end`; return the seconds of each."""
    seconds = []
    while time.time() < end:
        began = time.perf_counter()
        async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
            order = uuid7()
            await work.session.execute(text("INSERT INTO orders VALUES (:id, 'book')"), {"id": order})
            work.outbox.add("bench.nothing", order_id=str(order))
        seconds.append(time.perf_counter() - began)
    return seconds


def run_clients(url: str, kind: type[Database], clients: int, begin: float) -> list[float]:
    """Run clients in this process from `begin` for the duration of a round; return the seconds of their commits."""

    async def run() -> list[float]:
        async with kind(DatabaseSettings(url=SecretStr(url), pool_size=clients)) as database:
            await asyncio.gather(*(commit_until(database, begin) for _ in range(clients)))  # warms up
            timed = await asyncio.gather(*(commit_until(database, begin + SECONDS) for _ in range(clients)))
            return list(chain.from_iterable(timed))

    return asyncio.run(run())


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[list[object]]:
    """Yield the list to which each notification is added."""
    received: list[object] = []
    async with build_database(DatabaseSettings(url=SecretStr(url))) as database, database.direct_connection() as line:
        await line.add_listener("tequipy_outbox", lambda *notification: received.append(notification))
        yield received


async def measure_round(
    url: str, kind: type[Database], clients: int, processes: ProcessPoolExecutor
) -> tuple[float, float, list[float]]:
    """Return the commits per second, the notifications per commit, and the seconds of each commit."""
    share = [clients // -(-clients // CLIENTS_PER_PROCESS)] * -(-clients // CLIENTS_PER_PROCESS)
    async with listening(url) as received:
        begin = time.time() + _WARM_UP_SECONDS
        running = [processes.submit(run_clients, url, kind, part, begin) for part in share]
        await asyncio.sleep(begin - time.time())
        before = len(received)
        seconds = list(chain.from_iterable(await asyncio.gather(*map(asyncio.wrap_future, running))))
        return len(seconds) / SECONDS, (len(received) - before) / len(seconds), seconds


def main() -> None:
    """Start the servers, run all candidates in turn and print the tables."""
    rates: dict[tuple[str, int], list[float]] = {}
    notifications: dict[tuple[str, int], list[float]] = {}
    milliseconds: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgres = stack.enter_context(replicated_postgres(Path(folder)))
        processes = stack.enter_context(ProcessPoolExecutor(max(CLIENTS) // CLIENTS_PER_PROCESS, get_context("spawn")))
        url = postgres.url(_NAME)
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for name, (preparation, kind) in CANDIDATES.items():
                    postgres.execute(preparation, database=_NAME)
                    postgres.execute("TRUNCATE platform.outbox, orders CASCADE", database=_NAME)
                    rate, notified, seconds = asyncio.run(measure_round(url, kind, clients, processes))
                    rates.setdefault((name, clients), []).append(rate)
                    notifications.setdefault((name, clients), []).append(notified)
                    milliseconds.setdefault((name, clients), []).extend(1000 * each for each in seconds)
    columns = ["clients", *map(str, CLIENTS)]
    for title, figures in (("Commits a second", rates), ("Notifications a commit", notifications)):
        rows = [(name, *(statistics.median(figures[name, clients]) for clients in CLIENTS)) for name in CANDIDATES]
        print_table(
            f"{title}, synchronous standby behind {DELAY * 1000:.0f} ms: medians of {ROUNDS} rounds", columns, rows
        )
    for title, percentile in (("p50", 50), ("p99", 99)):
        rows = [
            (name, *(statistics.quantiles(milliseconds[name, clients], n=100)[percentile - 1] for clients in CLIENTS))
            for name in CANDIDATES
        ]
        print_table(f"Milliseconds of a commit, {title}", columns, rows)


if __name__ == "__main__":
    main()
