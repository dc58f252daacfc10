"""The deployment behind a real pgbouncer in transaction mode, where each transaction may use another connection."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment, Load, count, eventually, failed, slowest, traffic
from tequipy_devstack.proving.traffic import PASSWORD
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_platform.database import DatabaseSettings, build_database

from .pgbouncer import PGBOUNCER, Pgbouncer

# Requires the Debian package pgbouncer: CI installs it, and then runs the quick proofs.
pytestmark = [
    pytest.mark.prove,
    pytest.mark.quick,
    pytest.mark.skipif(PGBOUNCER is None, reason="apt-get install pgbouncer"),
]


@pytest.fixture
def pooled_deployment(
    pgbouncer: Pgbouncer, postgres: PostgresServer, redis: ValkeyServer, mails: MailSink, tmp_path: Path
) -> Deployment:
    deployment = Deployment(
        tmp_path,
        database_url=pgbouncer.url("pooled"),
        redis=redis,
        mails=mails,
        TEQUIPY_DATABASE__PGBOUNCER="true",
        TEQUIPY_DATABASE__DIRECT_URL=postgres.create_database("pooled"),
    )
    deployment.migrate()
    deployment.create_admin()
    return deployment


def travel(url: str, mails: MailSink) -> list[int]:
    """Register, verify, log in, get the account, refresh, log out and refresh again; return the statuses."""
    address = f"{uuid4().hex}@example.com"
    account = {"email": address, "password": PASSWORD}
    statuses: list[int] = []

    def send(method: str, path: str, **request: Any) -> Any:
        answer = client.request(method, path, **request)
        statuses.append(answer.status_code)
        return answer.json() if answer.is_success and answer.content else {}

    with httpx.Client(base_url=f"{url}/api/v1/auth", timeout=30) as client:
        send("POST", "/register", json=account)
        eventually("the mail has arrived", lambda: list(mails.folder.glob(f"*-{address}.eml")))
        (mail,) = mails.folder.glob(f"*-{address}.eml")
        token = re.search(r"ev1\.[\w-]+\.[\w-]+", mail.read_text())
        assert token
        send("POST", "/verify-email", json={"token": token[0]})
        first = send("POST", "/login", json={**account, "token_delivery": "body"})
        send("GET", "/me", headers={"Authorization": f"Bearer {first.get('access_token')}"})
        second = send("POST", "/refresh", json={"refresh_token": first.get("refresh_token")})
        last = {"refresh_token": second.get("refresh_token")}
        send("POST", "/logout", json=last)
        send("POST", "/refresh", json=last)
    return statuses


def test_the_journey_passes_through_pgbouncer(
    pooled_deployment: Deployment, pgbouncer: Pgbouncer, mails: MailSink
) -> None:
    """Eight parallel walkthroughs and 20 requests a second on two server connections: no request fails."""
    with (
        pooled_deployment.api() as api,
        pooled_deployment.worker(),
        pooled_deployment.relay(),
        ThreadPoolExecutor(8) as travellers,
    ):
        with Load(api.url, traffic(api.url), rate=20) as load:
            journeys = list(travellers.map(lambda _: travel(api.url, mails), range(8)))
            load.send(100)
        lent = pgbouncer.execute("SHOW STATS_TOTALS", database="pgbouncer")
        connections = pgbouncer.execute("SHOW SERVERS", database="pgbouncer").splitlines()
    transactions = next(line for line in lent.splitlines() if line.startswith("pooled")).split("|")[1]
    print(
        f"\n8 journeys and {len(load.samples)} requests through pgbouncer: {transactions} transactions on "
        f"{len(connections)} connections, failed {len(failed(load.samples))}, slowest {slowest(load.samples):.2f} s"
    )
    assert journeys == [[202, 204, 200, 200, 200, 204, 401]] * 8
    assert count(failed(load.samples)) == {}
    assert len(connections) <= 2
    assert int(transactions) > len(load.samples)


def test_a_transaction_is_set_up_through_pgbouncer(pgbouncer: Pgbouncer, postgres: PostgresServer) -> None:
    """Each transaction is READ COMMITTED, in UTC and with timeouts, and leaves no setting for the next client."""
    direct = postgres.create_database("odd")
    for setting in ("default_transaction_isolation = serializable", "TimeZone = 'Asia/Tokyo'"):
        postgres.execute(f"alter database odd set {setting}")
    names = ("transaction_isolation", "TimeZone", "statement_timeout", "idle_in_transaction_session_timeout")

    async def read() -> tuple[list[list[str]], list[str]]:
        settings = {"url": pgbouncer.url("odd"), "direct_url": direct, "pgbouncer": True}
        async with build_database(DatabaseSettings.model_validate(settings)) as database:
            seen = []
            for _ in range(3):
                async with database.sessions() as session:
                    seen.append([str(await session.scalar(text(f"show {name}"))) for name in names])
            await database.ping()
        left = pgbouncer.execute("select current_setting('statement_timeout')", database="odd")
        return seen, left.split()

    seen, left = asyncio.run(read())
    assert seen == [["read committed", "UTC", "30s", "1min"]] * 3
    assert left == ["0"]


def test_a_notification_passes_through_pgbouncer(pgbouncer: Pgbouncer, postgres: PostgresServer) -> None:
    """Notifications that are sent through the pooler reach a listener that bypasses it, one after the other."""
    direct = postgres.create_database("notified")
    settings = {"url": pgbouncer.url("notified"), "direct_url": direct, "pgbouncer": True}
    received: list[object] = []

    async def notify() -> None:
        async with (
            build_database(DatabaseSettings.model_validate(settings)) as database,
            database.direct_connection() as listener,
        ):
            await listener.add_listener("test_channel", lambda *arguments: received.append(arguments[-1]))
            for number in range(3):
                database.notify("test_channel", str(number))
                await asyncio.to_thread(eventually, "it has arrived", partial(received.__contains__, str(number)))

    asyncio.run(notify())
    assert received == ["0", "1", "2"]
