"""What is seen of a call: header fields at the upstream, metrics with bounded labels, log lines without secrets."""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from tequipy_devstack.proving.upstream import Exchange, Upstream, head, reply
from tequipy_observability import RequestContext, request_context
from tequipy_observability.logging import Process, configure_logging
from tequipy_platform.http import CircuitOpen, DeadlineExceeded, HttpClients, HttpSettings, build_http_clients

SECRET = "s3cr3t"


def calls(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == "http_client_request"]


async def test_a_call_is_one_log_line(http: HttpClients, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """Profile, host, method, status, attempts and duration are logged; 5xx and errors as warnings."""
    caplog.set_level(logging.INFO)
    url = upstream.route("/recovers", reply(503), reply(200))
    await http.default.get(url)
    await http.llm.post(upstream.url + "/503")
    with pytest.raises(DeadlineExceeded):
        await http.health.get(upstream.url + "/hang", extensions={"total": 0.05})
    first, second, third = calls(caplog)
    fields = ("levelname", "http_profile", "http_host", "http_method", "outcome", "attempts")
    assert [[getattr(record, name) for name in fields] for record in (first, second, third)] == [
        ["INFO", "default", "127.0.0.1", "GET", "200", 2],
        ["WARNING", "llm", "127.0.0.1", "POST", "503", 1],
        ["WARNING", "health", "127.0.0.1", "GET", "deadline_exceeded", 1],
    ]
    assert first.duration_ms > 0  # type: ignore[attr-defined]


async def test_opening_and_closing_a_breaker_is_logged_and_shown(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says that the breaker of a host has opened, one that it has closed, and the gauge follows."""
    caplog.set_level(logging.INFO)
    clients = HttpClients(
        HttpSettings(),
        user_agent="shop/1",
        registry=registry,
        transports=lambda _: httpx.MockTransport(lambda _: httpx.Response(status)),
    )
    labels = {"profile": "default", "host": "api.example.com"}
    status = 500
    loop = asyncio.get_running_loop()
    async with clients as http:
        for _ in range(20):
            await http.default.get("https://api.example.com/")
        assert registry.get_sample_value("http_client_circuit_open", labels) == 1
        with pytest.raises(CircuitOpen) as refused:
            await http.default.get(f"https://api.example.com/{SECRET}")
        assert SECRET not in str(refused.value)
        later = loop.time() + 15
        monkeypatch.setattr(loop, "time", lambda: later)
        status = 200
        for _ in range(3):
            await http.default.get("https://api.example.com/")
    assert registry.get_sample_value("http_client_circuit_open", labels) == 0
    lines = [record.getMessage() for record in caplog.records if "circuit" in record.getMessage()]
    assert lines == ["http_client_circuit_opened", "http_client_circuit_closed"]
    assert [record.attempts for record in calls(caplog) if record.outcome == "circuit_open"] == [0]  # type: ignore[attr-defined]


async def test_the_gauge_of_a_host_that_is_forgotten_returns_to_zero(registry: CollectorRegistry) -> None:
    """Breakers of hosts that 1,000 other hosts have replaced are not counted as open, even if a call ends later."""
    release = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/late":
            await release.wait()
        return httpx.Response(500 if request.url.host in {"open.example.com", "late.example.com"} else 200)

    http = HttpClients(
        HttpSettings(), user_agent="t/1", registry=registry, transports=lambda _: httpx.MockTransport(answer)
    )
    async with http:
        late = [asyncio.create_task(http.default.get("https://late.example.com/late")) for _ in range(20)]
        await asyncio.sleep(0)  # they begin
        for _ in range(20):
            await http.default.get("https://open.example.com/")
        for number in range(1000):
            await http.default.get(f"https://host{number}.example.com/")
        release.set()
        await asyncio.gather(*late)
    gauges = [
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "http_client_circuit_open"
    ]
    assert (len(gauges), set(gauges)) == (51, {0})


def series(registry: CollectorRegistry, label: str) -> set[str]:
    """Return all values of a label."""
    return {
        sample.labels[label] for metric in registry.collect() for sample in metric.samples if label in sample.labels
    }


async def test_labels_are_bounded(registry: CollectorRegistry) -> None:
    """1,000 hosts, 900 statuses, odd methods and errors of callers add at most 51 hosts, and 100 other labels."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/error":
            raise type(f"Error{request.url.host[4:8]}", (Exception,), {})
        return httpx.Response(100 + hash(request.url.host) % 900)

    http = HttpClients(
        HttpSettings(attempts=1), user_agent="t/1", registry=registry, transports=lambda _: httpx.MockTransport(answer)
    )
    async with http:
        for number in range(1000):
            for client in (http.default, http.webhooks):
                await client.request(f"X{number}", f"https://host{number}.example.com/")
            with pytest.raises(Exception, match=r"^$"):
                await http.llm.get(f"https://host{number}.example.com/error")
    assert len(series(registry, "host")) == 51
    assert "_OTHER" in series(registry, "host")
    assert series(registry, "method") == {"_OTHER", "GET"}
    assert len(series(registry, "outcome")) < 70
    hosts_of_users = {
        sample.labels["host"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.labels.get("profile") == "webhooks" and "host" in sample.labels
    }
    assert hosts_of_users == {"_OTHER"}


async def test_gauges_return_to_zero(http: HttpClients, upstream: Upstream, registry: CollectorRegistry) -> None:
    """The gauge of calls in progress is 1 during a call, and 0 after it, however it has ended."""

    def in_progress() -> float | None:
        return registry.get_sample_value("http_client_requests_in_progress", {"profile": "default"})

    seen: list[float | None] = []

    async def watched(exchange: Exchange) -> bool:
        seen.append(in_progress())
        return await reply()(exchange)

    await http.default.get(upstream.route("/watched", watched))
    assert (seen, in_progress()) == ([1], 0)
    for path in ("/truncated", "/reset-in-head", "/endless-head"):
        with pytest.raises(httpx.TransportError):
            await http.default.post(upstream.url + path)
    with pytest.raises(ValueError, match="of the caller"):
        await http.default.post(upstream.url + "/ok", content=failing())
    assert in_progress() == 0


async def failing() -> AsyncIterator[bytes]:
    yield b"."
    raise ValueError("of the caller")


def texts(error: BaseException) -> str:
    """Return everything that a log could show of an error."""
    seen = [str(error), repr(error), "".join(traceback.format_exception(error))]
    if isinstance(error, httpx.HTTPStatusError):
        seen += [repr(error.response), repr(error.response.request), repr(error.response.url)]
    if isinstance(error, httpx.RequestError):
        seen += [repr(error.request), repr(error.request.url)]
    return "\n".join(seen)


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_no_secret_of_a_call_is_logged_or_raised(
    upstream: Upstream, capfdbinary: pytest.CaptureFixture[bytes], level: str
) -> None:
    """In our configuration, also at DEBUG, no path, query, header field or password of a call is in logs or errors."""
    configure_logging(Process("test", "test", "1.0"), level=level, style="json")
    credentials = f"http://user:{SECRET}pw@127.0.0.1:{upstream.port}"

    async def unauthorized(exchange: Exchange) -> bool:
        await exchange.write(head(401, {"Set-Cookie": f"session={SECRET}", "Content-Length": "0"}))
        return True

    upstream.route(f"/{SECRET}", unauthorized)
    errors: list[BaseException] = []
    async with build_http_clients(HttpSettings(), app_name="shop", app_version="1") as http:
        for path in (f"/{SECRET}", "/reset-in-head", "/truncated", "/endless-head", "/hang"):
            try:
                response = await http.default.post(
                    f"{credentials}{path}?token={SECRET}",
                    headers={"X-API-Key": SECRET},
                    content=SECRET,
                    extensions={"total": 0.3},
                )
                response.raise_for_status()
            except httpx.HTTPError as error:
                errors.append(error)
                logging.getLogger("shop").exception("call_failed")
    assert len(errors) == 5
    assert upstream.requests[0].headers["authorization"].startswith("Basic ")
    output = capfdbinary.readouterr().out.decode()
    lines = [json.loads(line) for line in output.splitlines()]
    assert sum(line["message"] == "http_client_request" for line in lines) == 5
    assert SECRET not in output
    assert f"{SECRET}pw" not in "".join(texts(error) for error in errors)
    assert SECRET not in "".join(f"{error} {error!r}" for error in errors)
    assert "".join(traceback.format_exception(errors[0])).count("127.0.0.1 responded 401 to POST") == 1


async def test_an_error_status_can_be_handled(http: HttpClients, upstream: Upstream) -> None:
    """`raise_for_status` returns the response of a success, and else raises an error that has request and response."""
    assert (await http.default.get(upstream.url + "/ok")).raise_for_status().text == "ok"
    url = upstream.route("/moved", reply(301))
    for path, status in (("/none", 404), ("/503", 503), ("/moved", 301)):
        response = await http.health.post(upstream.url + path)
        with pytest.raises(httpx.HTTPStatusError) as failed:
            response.raise_for_status()
        assert failed.value.response is response
        assert (failed.value.response.status_code, failed.value.request.method) == (status, "POST")
    assert url


async def test_credentials_of_a_url_are_sent_and_forgotten(http: HttpClients, upstream: Upstream) -> None:
    """User and password of a URL are sent once, unless the caller has its own; no representation shows them."""
    url = f"http://user:{SECRET}@127.0.0.1:{upstream.port}/ok"
    response = await http.default.get(url)
    await http.default.get(url, auth=("other", "password"))
    await http.default.get(url, auth=None)
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent[0] == sent[2] == httpx.BasicAuth("user", SECRET)._auth_header
    assert sent[1] == httpx.BasicAuth("other", "password")._auth_header
    assert SECRET not in f"{response!r} {response.request!r} {response.url!r} {response.url}"


async def test_the_upstream_sees_who_calls(http: HttpClients, upstream: Upstream) -> None:
    """User-Agent, correlation id and trace of the running request arrive, on each attempt and after a redirect."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def moved(exchange: Exchange) -> bool:
        await exchange.write(head(302, {"Location": "/ok", "Content-Length": "0"}))
        return True

    url = upstream.route("/moved", reply(503), moved)
    with request_context(RequestContext(correlation_id="abc", traceparent=trace)):
        await http.default.get(url)
    await http.default.get(upstream.url + "/ok")
    seen = [
        (each.headers.get("user-agent"), each.headers.get("x-correlation-id"), each.headers.get("traceparent"))
        for each in upstream.requests
    ]
    assert seen == [("shop/1", "abc", trace)] * 3 + [("shop/1", None, None)]
