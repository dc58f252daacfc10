"""Faults of the shipped processes and their servers raise the alerts that the runbook explains."""

import contextlib
import time
from collections.abc import Callable

import pytest

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving import Deployment, Load, Route, eventually, in_background, traffic
from tequipy_devstack.proving.smtp_stub import SmtpStub
from tequipy_devstack.proving.traffic import credentials
from tequipy_devstack.servers import PostgresServer, ValkeyServer

from .prometheus import PROMETHEUS, Prometheus

RATES = {"TEQUIPY_RATE_LIMITS__DEFAULT": "60000/60", "TEQUIPY_RATE_LIMITS__LOGIN": "6000/60"}
LOGIN = Route("POST", "/api/v1/auth/login", 200, body=credentials)


def await_alert(prometheus: Prometheus, name: str) -> None:
    eventually(f"{name} is raised", lambda: name in prometheus.raised(), within=120)


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.skipif(PROMETHEUS is None, reason="apt-get install prometheus")
def test_each_fault_raises_its_alerts(deployment: Deployment, postgres: PostgresServer, redis: ValkeyServer) -> None:
    """One fault after another raises alerts that were not raised before, on a Prometheus that does not wait (`for`)."""
    ports = {name: free_port() for name in ("worker", "relay")}
    port = {name: {"TEQUIPY_OBSERVABILITY__METRICS_PORT": str(number)} for name, number in ports.items()}
    smtp = SmtpStub()
    with contextlib.ExitStack() as stack:
        stack.callback(postgres.restart)
        stack.callback(redis.restart)
        stack.enter_context(in_background(smtp))
        api = stack.enter_context(deployment.api(**RATES))
        worker = stack.enter_context(deployment.worker(TEQUIPY_MAIL__SMTP_URL=smtp.url(), **port["worker"]))
        relay = stack.enter_context(deployment.relay(**port["relay"]))
        prometheus = stack.enter_context(Prometheus(deployment.folder, {"api": api.port, **ports}, at_once=True))
        stack.enter_context(Load(api.url, [*traffic(api.url), LOGIN], rate=10))
        eventually("all processes are scraped", lambda: len(prometheus.query("up == 1")) == len(ports) + 1)
        eventually("mails are sent", lambda: prometheus.query('mails_total{outcome="sent"} > 0'))
        faults: list[tuple[str, Callable[[], None], set[str]]] = [
            (
                "the mail server refuses recipients",
                lambda: smtp.replies.update(RCPT="550 5.1.1 no such user"),
                {"DeadLetters"},
            ),
            (
                "the mail server refuses the sender",
                lambda: smtp.replies.update(MAIL="530 5.7.0 Authentication required"),
                {"MailSenderRefused"},
            ),
            ("Redis is killed", redis.kill, {"RedisUnreachable", "RateLimitsDegraded"}),
            ("PostgreSQL is killed", postgres.kill, {"ErrorBudgetBurnsFast", "LoginsFail", "CacheLoadsFailing"}),
            ("the relay is killed", relay.kill, {"RelayAbsent"}),
            ("the worker is killed", worker.kill, {"WorkerAbsent"}),
            ("the API is killed", api.kill, {"ApiAbsent"}),
        ]
        print("\n| fault | alerts | seconds |\n|---|---|---|")
        for name, fault, alerts in faults:
            assert not alerts & prometheus.raised(), name
            began = time.monotonic()
            fault()
            for alert in sorted(alerts):
                await_alert(prometheus, alert)
                print(f"| {name} | {alert} | {time.monotonic() - began:.0f} |")
