"""The pipeline of stages: the order of calls, answers, errors and heads."""

import asyncio
import inspect
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import Exchange, Head, ObserveRequests, Pipeline, Stage, TraceRequests

from ..log_lines import Lines

Act = Literal["pass", "answer", "answer later", "raise", "start and raise", "cancel"]
ACTS: tuple[Act, ...] = ("pass", "answer", "answer later", "raise", "start and raise", "cancel")


@dataclass(eq=False)
class Scripted(Stage):
    """A stage that does what it is told, and notes its calls."""

    name: str
    act: Act
    settles: bool
    fails_again: bool
    calls: list[str] = field(default_factory=list)

    def before(self, exchange: Exchange) -> Response | Awaitable[Response | None] | None:
        self.calls.append(f"{self.name} before")
        match self.act:
            case "pass":
                return None
            case "answer":
                return PlainTextResponse(self.name)
            case _:
                return self.act_later(exchange)

    async def act_later(self, exchange: Exchange) -> Response | None:
        return await perform(self.act, self.name, exchange.send)

    def head(self, exchange: Exchange, head: Head) -> None:
        self.calls.append(f"{self.name} head {head.status} {exchange.started}")
        head.set((b"x-last", self.name.encode()))
        head.set((f"x-{self.name}".encode(), b", ".join(head.values(b"x-last"))))

    async def failed(self, exchange: Exchange, error: BaseException) -> bool:
        self.calls.append(f"{self.name} failed {error!r}")
        if self.fails_again:
            raise LookupError(self.name)
        if self.settles and not exchange.started:
            await exchange.answer(PlainTextResponse(self.name, 500))
        return self.settles

    def after(self, exchange: Exchange) -> None:
        self.calls.append(f"{self.name} after {exchange.status} {exchange.size} {exchange.started} {exchange.complete}")


async def perform(act: Act, name: str, send: Send) -> Response | None:
    if act == "start and raise":
        await send({"type": "http.response.start", "status": 202, "headers": [(b"X-Last", b"app")]})
    if act == "cancel":
        raise asyncio.CancelledError
    if act in {"raise", "start and raise"}:
        raise ValueError(name)
    return PlainTextResponse(name) if act == "answer later" else None


async def served(app: ASGIApp) -> tuple[list[Message], str]:
    """Return the messages that an app sends, and the error that it raises."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "app": FastAPI()}
    try:
        await app(scope, receive, send)
    except BaseException as error:  # noqa: BLE001 -- compared
        return sent, repr(error)
    return sent, ""


stage_plans = st.lists(st.tuples(st.sampled_from(ACTS), st.booleans(), st.booleans()), max_size=5)


@given(stage_plans, st.sampled_from(ACTS))
async def test_a_pipeline_behaves_as_nested_middleware(plans: list[tuple[Act, bool, bool]], last: Act) -> None:
    """Stages in one pipeline answer, fail and are called like the same stages in pipelines of one around each other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await perform(last, "app", send) or PlainTextResponse("app")
        await response(scope, receive, send)

    def stages() -> tuple[list[Scripted], list[str]]:
        calls: list[str] = []
        return [Scripted(f"s{number}", *plan, calls) for number, plan in enumerate(plans)], calls

    together, calls = stages()
    nested, nested_calls = stages()
    one: ASGIApp = Pipeline(app, together)
    many: ASGIApp = app
    for stage in reversed(nested):
        many = Pipeline(many, [stage])
    assert await served(one) == await served(many)
    assert [call for call in calls if " after" not in call] == [call for call in nested_calls if " after" not in call]
    # Those at the end come last, so that they know the response to an error, and once for each stage passed.
    ends = [call.split()[0] for call in calls if " after" in call]
    assert ends == [call.split()[0] for call in nested_calls if " after" in call]
    assert [call.split()[0] for call in calls[len(calls) - len(ends) :]] == ends


async def test_a_message_passes_one_function_however_many_stages_there_are() -> None:
    """Between the app and the server there is one function for one stage and for nine."""
    depths: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("")(scope, receive, send)

    async def send(_: Message) -> None:
        depths.append(len(inspect.stack()))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    for number in (1, 9):
        stages = [Scripted(f"s{each}", "pass", settles=False, fails_again=False) for each in range(number)]
        await Pipeline(app, stages)({"type": "http", "headers": [], "app": FastAPI()}, receive, send)
    assert len(depths) == 4
    assert len(set(depths)) == 1


async def test_a_head_has_each_name_as_a_stage_sets_it() -> None:
    """`set` replaces fields in any case, `set_missing` keeps those that are there, `remove` and `values` find all."""
    head = Head(200, [(b"Vary", b"A"), (b"vary", b"B"), (b"x-kept", b"1")])
    assert head.values(b"vary") == [b"A", b"B"]
    head.set((b"vary", b"C"))
    head.set_missing([(b"x-kept", b"2"), (b"x-new", b"3")], frozenset({b"x-kept", b"x-new"}))
    head.set_missing([(b"x-new", b"4")], frozenset({b"x-new"}))
    assert head.fields == [(b"x-kept", b"1"), (b"vary", b"C"), (b"x-new", b"3")]
    head.remove(b"x-new")
    assert (head.values(b"x-new"), head.fields) == ([], [(b"x-kept", b"1"), (b"vary", b"C")])


def observed() -> FastAPI:
    """Return an app with routes that stay FastAPI's own."""
    stages = [ObserveRequests(CollectorRegistry()), TraceRequests()]
    app, inner = FastAPI(middleware=[Middleware(Pipeline, stages)]), FastAPI()

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("hello")
        await connection.close()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "done"

    async def fail() -> None:
        raise LookupError("of the task")

    @inner.get("/leaf")
    async def leaf() -> str:
        return "leaf"

    app.mount("/mounted", inner)
    return app


async def test_a_websocket_passes_unchanged() -> None:
    """A WebSocket is served as without the pipeline."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/socket", "headers": [], "subprotocols": [], "query_string": b""}
    await observed()(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "hello"


async def test_a_request_of_a_mounted_app_is_observed_once(lines: Lines) -> None:
    """A mounted app changes the scope, and the request is still observed under the route of the mount."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(observed()), base_url="http://test") as client:
        answer = await client.get("/mounted/leaf", headers={"X-Correlation-ID": "abc"})
        failed = await client.get("/mounted/missing")
    assert (answer.json(), answer.headers.get_list("X-Correlation-ID")) == ("leaf", ["abc"])
    assert failed.status_code == 404
    assert [(line["route"], line["status"]) for line in lines()] == [("/mounted", 200), ("/mounted", 404)]


async def test_an_error_of_a_background_task_is_logged_after_the_response(lines: Lines) -> None:
    """The response of the route is complete; the error is logged once, under its correlation id, and not raised."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(observed()), base_url="http://test") as client:
        answer = await client.get("/background", headers={"X-Correlation-ID": "abc"})
    assert (answer.status_code, answer.json()) == (200, "done")
    assert [(line["message"], line["correlation_id"]) for line in lines()] == [
        ("request_failed", "abc"),
        ("http_request", "abc"),
    ]


class Broken(Stage):
    """A stage with a bug."""

    def __init__(self, method: str) -> None:
        self.method = method

    def head(self, exchange: Exchange, head: Head) -> None:  # noqa: ARG002 -- of the base class
        if self.method == "head" and head.status == 200:
            raise LookupError("of the stage")

    def after(self, exchange: Exchange) -> None:  # noqa: ARG002 -- of the base class
        if self.method == "after":
            raise LookupError("of the stage")


@pytest.mark.parametrize(
    ("method", "status", "events"),
    [("head", 500, ["request_failed", "http_request"]), ("after", 200, ["stage_failed", "http_request"])],
)
async def test_a_bug_of_a_stage_hides_no_request(method: str, status: int, events: list[str], lines: Lines) -> None:
    """A stage that fails at the head is answered with 500; after the response, the other stages still do their part."""
    registry = CollectorRegistry()
    app = FastAPI(middleware=[Middleware(Pipeline, [ObserveRequests(registry), Broken(method)])])

    @app.get("/")
    async def leaf() -> str:
        return "leaf"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/", headers={"X-Correlation-ID": "abc"})
    assert (answer.status_code, answer.headers["X-Correlation-ID"]) == (status, "abc")
    assert [(line["message"], line["correlation_id"]) for line in lines()] == [(event, "abc") for event in events]
    assert registry.get_sample_value("http_requests_in_progress") == 0


@pytest.mark.parametrize("method", ["before", "head", "failed", "after"])
async def test_only_methods_that_a_stage_overrides_are_called(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default methods of `Stage`, and all of one that is not active, are never called, so they cost nothing."""

    def unexpected(*_: object) -> None:
        raise AssertionError(method)

    async def app(*_: object) -> None:
        raise ValueError("of the app")

    inactive = Scripted("inactive", "answer", settles=True, fails_again=False)
    inactive.active = False
    pipeline = Pipeline(app, [Stage(), inactive])
    monkeypatch.setattr(Stage, method, unexpected)
    sent, error = await served(pipeline)
    assert (sent, error, inactive.calls) == ([], "ValueError('of the app')", [])
