"""One trace across request, SQL, Redis, outbox, task and outgoing call: in memory, and from the shipped processes."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis import Redis
from starlette.middleware import Middleware

from tequipy_caching import CacheManager, CachePolicy
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment, TraceCollector, eventually, trace_collector
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_observability import SpanKind
from tequipy_observability.api import ObserveRequests, Pipeline, TraceRequests
from tequipy_observability.testing import RecordedSpan, describe_spans, recorded_spans
from tequipy_observability.wiring import Observability, ObservabilitySettings
from tequipy_platform import Delivery, Handler, SystemClock, Task
from tequipy_platform.database import Database, DatabaseSettings, build_database, uuid7
from tequipy_platform.http import HttpClients, HttpSettings, build_http_clients
from tequipy_platform.messaging import SqlUnitOfWork, build_message_log, build_unpublished_messages
from tequipy_platform.messaging.celery import CelerySettings, build_celery, build_relay
from tequipy_platform.messaging.deliveries import Deliveries, Outcome

CONFIRM = Task("shop.confirm")
CALLER = f"00-{'a' * 32}-{'b' * 16}-01"


@contextmanager
def upstream() -> Iterator[tuple[str, list[str]]]:
    """Run an HTTP server, which is an API of breached passwords too; yield its URL and the requests' traceparents."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["traceparent"])
            self.send_response(204)
            self.end_headers()

        def do_GET(self) -> None:
            seen.append(self.headers["traceparent"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"0" * 35 + b":1\r\n")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def build_shop(observability: Observability, database: Database, cache: CacheManager) -> FastAPI:
    """Return an app that reads a price through the cache, and stores a message."""
    prices = cache.cache("prices", int)
    app = FastAPI(middleware=[Middleware(Pipeline, [ObserveRequests(observability.registry), TraceRequests()])])

    @prices.cached("price:{number}")
    async def load(number: int) -> int:
        return number * 5

    @app.post("/orders/{number}")
    async def order(number: int) -> int:
        async with SqlUnitOfWork(database, SystemClock(), uuid7) as work:
            work.outbox.add(CONFIRM.name, number=number)
        return await load(number)

    return app


def build_handler(http: HttpClients, url: str) -> Handler:
    async def confirm(_: Delivery, number: int) -> None:
        (await http.default.post(url, json={"number": number})).raise_for_status()

    return confirm


def published(redis_url: str) -> tuple[UUID, str]:
    """Take the only message from the broker, and return its id and traceparent."""
    with Redis.from_url(redis_url) as redis:
        headers = json.loads(redis.lpop("default") or "")["headers"]
    return UUID(headers["id"]), headers["traceparent"]


async def test_one_trace_from_request_to_outgoing_call(database_url: str, redis_url: str, redis_prefix: str) -> None:
    """A request, its statements and call of Redis, its message on the way and the call of the task are one trace."""
    celery = build_celery(CelerySettings(broker_url=SecretStr(redis_url)), [CONFIRM], name="shop")
    settings = DatabaseSettings(url=SecretStr(database_url))
    cache_settings = CacheSettings(
        url=SecretStr(redis_url), prefix=redis_prefix, policies={"prices": CachePolicy(ttl=60)}
    )
    with recorded_spans() as recorder, upstream() as (url, seen):
        async with (
            build_database(settings) as database,
            build_cache(cache_settings) as cache,
            build_unpublished_messages(database, redelivery=timedelta(minutes=10)) as messages,
            build_relay(celery, messages, [CONFIRM]) as relay,
            build_http_clients(HttpSettings(), app_name="shop", app_version="1") as http,
        ):
            observability = Observability(ObservabilitySettings(), CollectorRegistry())
            transport = httpx.ASGITransport(build_shop(observability, database, cache))
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
                response = await client.post("/orders/7", headers={"traceparent": CALLER})
            assert response.json() == 35
            await relay._publish_batch()
            message_id, carried = published(redis_url)
            deliveries = Deliveries({CONFIRM: build_handler(http, url)}, build_message_log(database))
            assert await deliveries.handle(message_id) is Outcome.SUCCEEDED
    spans = recorder.spans
    print(f"\n{describe_spans(spans)}")
    names = {span.name: span for span in spans}
    expected = {
        "POST /orders/{number}": None,
        "INSERT platform.outbox": "POST /orders/{number}",
        "EVALSHA read": "POST /orders/{number}",
        "create shop.confirm": "POST /orders/{number}",
        "send shop.confirm": "create shop.confirm",
        "process shop.confirm": "create shop.confirm",
        "POST": "process shop.confirm",
        "UPDATE platform.outbox": "process shop.confirm",
    }
    by_id = {span.span_id: span.name for span in spans}
    assert {name: by_id.get(names[name].parent_id or "") for name in expected} == expected
    assert {span.trace_id for span in spans} == {"a" * 32}
    assert carried[:52] == names["create shop.confirm"].traceparent
    assert [each[:52] for each in seen] == [names["POST"].traceparent]


LOADED = """
import sys
from tequipy_platform.settings import load_settings
from tequipy_{app}.{module} import {create}
from tequipy_{app}.settings import {settings}
{create}(load_settings({settings}))
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("app", "module", "create", "settings"),
    [("worker", "worker", "create_worker", "WorkerSettings"), ("api", "app", "create_app", "ApiSettings")],
)
def test_a_process_without_tracing_loads_no_exporter(
    app: str, module: str, create: str, settings: str, tmp_path: Path
) -> None:
    """Without an endpoint no spans and no exporter of OpenTelemetry are loaded.

    Where the packages are installed, redis-py imports their metrics and FastAPI their API; without the extra neither
    can (tests/test_packages.py).
    """
    result = subprocess.run(
        [sys.executable, "-c", LOADED.format(app=app, module=module, create=create, settings=settings)],
        env={
            "TEQUIPY_ENVIRONMENT": "test",
            "TEQUIPY_PUBLIC_URL": "https://app.example.com",
            "TEQUIPY_DATABASE__URL": "postgresql+asyncpg://ada:secret@localhost/tequipy",
            "TEQUIPY_CACHE__URL": "redis://localhost/0",
            "TEQUIPY_CELERY__BROKER_URL": "redis://localhost/1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    unwanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf", "tequipy_observability.tracing")
    assert [name for name in result.stdout.split() if name.startswith(unwanted)] == []


@pytest.fixture
def collector() -> Iterator[TraceCollector]:
    with trace_collector() as running:
        yield running


def unreachable(spans: list[RecordedSpan], caller: str) -> list[str]:
    """Return the names of spans whose parent is neither recorded nor the caller's."""
    known = {span.span_id for span in spans} | {caller}
    return [span.name for span in spans if span.parent_id not in known]


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.timeout(300)
def test_one_trace_through_the_shipped_processes(
    private_postgres: PostgresServer, private_redis: ValkeyServer, tmp_path: Path, collector: TraceCollector
) -> None:
    """A registration is one trace in API, relay, a child of the worker and the mail; at their end all is exported."""
    with MailSink(tmp_path / "mail") as mails, upstream() as (upstream_url, seen):
        deployment = Deployment(
            tmp_path,
            database_url=private_postgres.create_database("tequipy"),
            redis=private_redis,
            mails=mails,
            TEQUIPY_OBSERVABILITY__OTLP_ENDPOINT=collector.endpoint,
            TEQUIPY_OBSERVABILITY__TRACE_SAMPLE_RATIO="0",
            TEQUIPY_AUTH__BREACHED_PASSWORDS_URL=upstream_url,
        )
        deployment.migrate()
        with deployment.api() as api, deployment.relay() as relay, deployment.worker() as worker:
            body = {"email": "ada@example.com", "password": "correct horse battery staple"}
            url = f"{api.url}/api/v1/auth/register?utm=s3cret"
            assert httpx.post(url, json=body, headers={"traceparent": CALLER}).status_code == 202
            eventually("the mail arrived", lambda: mails.messages(to="ada@example.com"))
            for process in (api, relay, worker):
                process.terminate()
    spans = collector.spans
    print(f"\n{describe_spans(spans)}")
    assert {span.trace_id for span in spans} == {"a" * 32}, "other traces are not sampled"
    assert unreachable(spans, "b" * 16) == []
    services = {span.name: span.service for span in spans}
    assert services["POST /api/v1/auth/register"] == services["create auth.send_mail"] == "api"
    assert services["send auth.send_mail"] == "relay"
    assert services["process auth.send_mail"] == services["SMTP"] == "worker"
    assert [span.name for span in spans if span.kind is SpanKind.SERVER] == ["POST /api/v1/auth/register"]
    (call,) = (span for span in spans if span.name == "GET")
    assert (call.service, [each[:52] for each in seen]) == ("api", [call.traceparent])
    assert "ada@example.com" not in str(spans)
    assert "s3cret" not in str(spans)
