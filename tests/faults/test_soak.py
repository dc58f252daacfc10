"""Both apps under mixed load while every process and server is killed and frozen at random: what is true at the end.

SOAK_SECONDS=3600 runs longer than ten minutes, and SOAK_SEED=1 repeats the choices of a run, which prints its seed.
"""

import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import (
    Balancer,
    Deployment,
    count,
    eventually,
    failed,
    in_background,
    slowest,
)
from tequipy_devstack.proving.traffic import ADMIN
from tequipy_devstack.servers import PostgresServer, ValkeyServer

from ..accounts import create_accounts
from .clients import Clients
from .disturbance import Soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
pytestmark = [pytest.mark.prove, pytest.mark.timeout(SECONDS + 1200)]

EVENTS = """
insert into auth.audit_events (id, at, action, outcome, ip, user_agent, metadata)
select gen_random_uuid(), timestamptz '2026-01-01 00:00Z' + n * interval '1 minute', 'login_ok', 'success',
  '192.0.2.1', 'Mozilla/5.0', '{}' from generate_series(0, 9999) n
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[ValkeyServer]:
    with tempfile.TemporaryDirectory(prefix="tequipy-valkey-") as folder, ValkeyServer(Path(folder)) as server:
        yield server


@pytest.fixture
def emails() -> list[str]:
    """Return the addresses of the clients, other ones in each test."""
    return [f"{uuid4().hex}@soaked.example.com" for _ in range(6)]


@pytest.fixture
def soak(
    deployment: Deployment, postgres: PostgresServer, redis: ValkeyServer, broker: ValkeyServer, emails: list[str]
) -> Iterator[Soak]:
    settings = {"TEQUIPY_CELERY__BROKER_URL": broker.url(), "TEQUIPY_WORKER__CONCURRENCY": "2"}
    postgres.execute("delete from reporting.reports; delete from platform.outbox", "tequipy")
    shutil.rmtree(deployment.storage, ignore_errors=True)
    create_accounts(deployment, emails)
    postgres.execute(EVENTS, "tequipy")
    apis = {f"api {number}": deployment.api(**settings) for number in (1, 2)}
    others = {
        "worker": deployment.worker(**settings),
        "beat": deployment.scheduler(**settings),
        "relay": deployment.relay(**settings),
    }
    seed = int(os.environ.get("SOAK_SEED", random.randrange(10**6)))  # noqa: S311 -- no secret
    print(f"\nseed {seed}")
    with ExitStack() as stack:
        for program in (*apis.values(), *others.values()):
            stack.enter_context(program)
        balancer = stack.enter_context(in_background(Balancer([api.port for api in apis.values()])))
        eventually("the balancer sees both", lambda: len(balancer.ready) == 2)
        yield Soak(
            {**apis, **others},
            {"postgres": postgres, "cache": redis, "broker": broker},
            balancer,
            random.Random(seed),  # noqa: S311 -- no secret
        )


def settle(soak: Soak, postgres: PostgresServer) -> None:
    """Wait until no message is unsettled and no report unfinished."""
    query = """
    select task || ' ' || state || ' ' || coalesce(error, '') from platform.outbox where settled_at is null
    union all select 'report ' || status from reporting.reports where status in ('queued', 'running')
    """
    deadline = time.monotonic() + 300
    while left := postgres.execute(query, "tequipy").splitlines():
        assert time.monotonic() < deadline, left[:20]
        soak.supervise()
        time.sleep(1)


@dataclass
class Inventory:
    """What there is at the end."""

    messages: Counter[str]
    reports: Counter[str]
    rows: set[str]
    objects: set[str]
    uploads: int
    mails: dict[str, Counter[str]]
    """The number of mails to each address by their Message-ID."""

    @classmethod
    def take(cls, deployment: Deployment, postgres: PostgresServer, sink: MailSink) -> Self:
        mails: dict[str, Counter[str]] = {}
        for mail in sink.messages():
            for address in re.findall(r"[\w.+-]+@[\w.-]+", str(mail["To"])):
                mails.setdefault(address, Counter())[str(mail["Message-ID"])] += 1
        keys = "select storage_key from reporting.reports where storage_key is not null"
        return cls(
            Counter(postgres.execute("select state from platform.outbox", "tequipy").split()),
            Counter(postgres.execute("select status from reporting.reports", "tequipy").split()),
            set(postgres.execute(keys, "tequipy").split()),
            {str(file.relative_to(deployment.storage)) for file in deployment.storage.glob("reports/*/*")},
            len(list(deployment.storage.glob(".tequipy/uploads/*"))),
            mails,
        )

    def describe(self, clients: Clients) -> str:
        expected, unknown = set(clients.registered), set(clients.unanswered)
        repeated = sum(ids.total() - len(ids) for ids in self.mails.values())
        return (
            f"mails: {len(expected)} expected, {len(expected - set(self.mails))} lost, {repeated} sent again under the "
            f"same Message-ID, {len(unknown & set(self.mails))} to {len(unknown)} registrations without a response\n"
            f"messages: {dict(self.messages)}\nreports: {len(clients.reports)} accepted, {dict(self.reports)}; "
            f"{len(self.objects - self.rows)} objects without a row, {len(self.rows - self.objects)} rows without an "
            f"object, {self.uploads} unfinished uploads"
        )


@pytest.mark.parametrize(
    "seconds", [pytest.param(25, id="short", marks=pytest.mark.quick), pytest.param(SECONDS, id="long")]
)
def test_nothing_is_lost_while_everything_fails(
    soak: Soak, deployment: Deployment, postgres: PostgresServer, mails: MailSink, emails: list[str], seconds: float
) -> None:
    """Requests fail during faults only, and no session, mail, task or report is lost, nor an object left over."""
    with Clients(soak.balancer.url, emails, pause=0.3, reporter=ADMIN) as clients:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(soak.chance.uniform(1, 4))
            soak.measure()
            soak.disturb()
        time.sleep(2)
    settle(soak, postgres)
    soak.measure()
    found, growth = Inventory.take(deployment, postgres, mails), soak.growth()
    outside = failed(soak.outside(clients.samples))
    print(
        f"{seconds:.0f} s, {soak.faults.total()} faults: {dict(sorted(soak.faults.items()))}; "
        f"ended by themselves: {soak.ended}\n"
        f"requests: {len(clients.samples)}, failed {count(failed(clients.samples))}, outside of faults "
        f"{count(outside)}, slowest {slowest(clients.samples):.1f} s; sessions lost: {len(clients.lost)}\n"
        f"{found.describe(clients)}"
    )
    for name, (first, last) in growth.items():
        print(
            f"{name}: in {last.at - first.at:.0f} s {first.megabytes:.0f} -> {last.megabytes:.0f} MB, "
            f"connections {first.connections} -> {last.connections}, files {first.files} -> {last.files}"
        )
    assert count(outside) == {}
    assert clients.lost == []
    assert {address: len(found.mails.get(address, ())) for address in clients.registered} == dict.fromkeys(
        clients.registered, 1
    )
    assert set(found.messages) == {"done"}
    assert found.reports == {"done": len(clients.reports)}
    assert found.objects == found.rows
    assert all(last.connections - first.connections <= 20 for first, last in growth.values())
    assert all(last.files - first.files <= 40 for first, last in growth.values())
