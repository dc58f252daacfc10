"""A collector of spans that hangs or is away: requests and tasks do not notice it, and processes end in time."""

import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import (
    Deployment,
    Load,
    TraceCollector,
    count,
    eventually,
    failed,
    slowest,
    trace_collector,
    traffic,
)
from tequipy_devstack.servers import PostgresServer, ValkeyServer

pytestmark = pytest.mark.timeout(300)
REQUESTS = 200
RATE = 20


@pytest.fixture
def collector() -> Iterator[TraceCollector]:
    with trace_collector() as running:
        yield running


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("hangs", marks=pytest.mark.prove),
        pytest.param("is away", marks=pytest.mark.prove),
        pytest.param("none", marks=pytest.mark.prove),
    ],
)
def test_a_collector_that_fails_costs_no_request(
    private_postgres: PostgresServer, private_redis: ValkeyServer, tmp_path: Path, collector: TraceCollector, fault: str
) -> None:
    """While a collector hangs or is away no request fails, all mails arrive, and each process stops within seconds."""
    collector.hangs = fault == "hangs"
    endpoint = "http://127.0.0.1:9" if fault == "is away" else collector.endpoint
    with MailSink(tmp_path / "mail") as mails:
        deployment = Deployment(
            tmp_path,
            database_url=private_postgres.create_database("tequipy"),
            redis=private_redis,
            mails=mails,
            TEQUIPY_OBSERVABILITY__OTLP_ENDPOINT=endpoint,
        )
        deployment.migrate()
        deployment.create_admin()
        with deployment.api() as api, deployment.relay() as relay, deployment.worker() as worker:
            with Load(api.url, traffic(api.url), rate=RATE) as load:
                load.send(REQUESTS)
            registered = sum(sample.path.endswith("register") for sample in load.samples)
            eventually("every mail has arrived", lambda: len(mails.messages()) >= registered)
            seconds = {}
            for name, process in (("api", api), ("relay", relay), ("worker", worker)):
                began = time.monotonic()
                assert process.terminate() in {0, -SIGTERM}, process.log.read_text()[-2000:]
                seconds[name] = time.monotonic() - began
            outages = [log.read_text().count("span_export_failed") for log in (api.log, relay.log, worker.log)]
    print(
        f"\ncollector: {fault}; {len(load.samples)} requests: {count(load.samples)}, "
        f"slowest {slowest(load.samples):.2f} s; {registered} mails; {len(collector.spans)} spans arrived; "
        f"failed exports logged: {outages}; "
        f"stopped after " + ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items())
    )
    assert failed(load.samples) == []
    assert max(seconds.values()) < 8
    assert (len(collector.spans) > REQUESTS) == (fault == "none")
