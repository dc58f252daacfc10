"""Which requests compiled code serves."""

import threading
from typing import Annotated

import pytest
from fastapi import Depends, WebSocket
from fastapi.responses import HTMLResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import AfterValidator
from starlette.background import BackgroundTask
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tequipy_platform.web import CompiledRoutes

from .apps import Rewrite, converse, get, make_app, nothing, reasons, warnings_of


async def test_simple_routes_are_served_by_compiled_code(served: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A literal path, a path with a parameter, and a wrong parameter are served without FastAPI's handler."""
    app = make_app()
    assert (await get(app, "/one")).json() == 1
    assert (await get(app, "/things/7")).json() == [7, 1]
    assert (await get(app, "/things/x")).status_code == 422
    assert served == ["/one", "/things/7", "/things/x"]
    assert (await get(app, "/one", "HEAD")).status_code == 405
    assert (await get(app, "/one/")).status_code == 307
    assert (await get(app, "/none")).status_code == 404
    assert len(served) == 3
    assert reasons(app) == {"/one": None, "/things/{thing}": None}
    assert warnings_of(caplog) == []


async def test_a_path_or_method_that_a_middleware_changes_selects_the_route(served: list[str]) -> None:
    """The route is that of the path and method which the router would see, although it was looked up before."""
    app = make_app(Middleware(Rewrite, {"/old": "/one", "/one": "/things/3"}))
    assert (await get(app, "/old")).json() == 1
    assert (await get(app, "/one")).json() == [3, 1]
    assert (await get(app, "/things/4", "FETCH")).json() == [4, 1]
    assert (await get(app, "/svc/things/5")).json() == [5, 1]
    assert served == ["/one", "/things/3", "/things/4", "/svc/things/5"]


async def test_overridden_dependencies_are_fastapis_own(served: list[str]) -> None:
    """While `dependency_overrides` has entries, FastAPI serves all routes; then compiled code does again."""

    def answer() -> int:
        return 42

    app = make_app()

    @app.get("/answer")
    async def tell(number: Annotated[int, Depends(answer)]) -> int:
        return number

    app.dependency_overrides[answer] = lambda: 7
    assert (await get(app, "/answer")).json() == 7
    assert served == []
    app.dependency_overrides.clear()
    assert (await get(app, "/answer")).json() == 42
    assert served == ["/answer"]


async def test_routes_that_are_added_later_are_served(served: list[str]) -> None:
    """A route that is added after the first request is served, and so is one that then comes before another."""
    app = make_app()
    assert (await get(app, "/one")).json() == 1

    @app.get("/two")
    async def two() -> int:
        return 2

    assert (await get(app, "/two")).json() == 2
    app.router.routes.insert(0, Route("/one", HTMLResponse("first")))
    assert (await get(app, "/one")).text == "first"
    assert served == ["/one", "/two"]


class Failing(Convertor[int]):
    """A convertor that refuses what its pattern matches."""

    regex = "[a-z]+"

    def convert(self, value: str) -> int:
        raise ValueError(value)

    def to_string(self, value: int) -> str:
        return str(value)


async def test_a_convertor_that_fails_before_the_route_fails_as_in_fastapi() -> None:
    """A path that an earlier route of another method matches, but cannot convert, is an error, compiled or not."""
    register_url_convertor("failing", Failing())
    app = make_app()
    app.add_api_route("/x/{name:failing}", nothing, methods=["POST"])
    app.add_api_route("/x/{other}", nothing)
    app.add_api_route("/x/fixed", nothing)
    app.add_api_route("/y/{other}", nothing)
    assert reasons(app)["/x/{other}"] == "an earlier route whose convertor can fail may match the path"
    assert reasons(app)["/x/fixed"] == "an earlier route whose convertor can fail may match the path"
    assert reasons(app)["/y/{other}"] is None
    with pytest.raises(ValueError, match="fixed"):
        await get(app, "/x/fixed")
    with pytest.raises(ValueError, match="abc"):
        await get(app, "/x/abc", "POST")


async def test_routes_of_a_mounted_app_are_compiled_by_its_own_middleware(served: list[str]) -> None:
    """A mounted app serves its simple routes by compiled code, with the prefix of the mount."""
    app, outer = make_app(), make_app()
    outer.mount("/svc", app)
    assert (await get(outer, "/svc/things/5")).json() == [5, 1]
    assert (await get(outer, "/things/5")).json() == [5, 1]
    assert served == ["/svc/things/5", "/things/5"]


async def test_requests_that_fastapis_telemetry_observes_are_fastapis_own(served: list[str]) -> None:
    """FastAPI's own telemetry, if an app uses it, sees all steps of all requests."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = make_app(telemetry={"tracer_provider": provider, "metrics": False, "logs": False, "auto_configure": False})
    assert (await get(app, "/one")).json() == 1
    assert served == []
    assert {span.name for span in spans.get_finished_spans()} >= {"GET /one", "fastapi.endpoint"}


async def test_the_response_of_a_synchronous_endpoint_is_validated_in_a_thread(served: list[str]) -> None:
    """Validators of the response of a synchronous endpoint may block, so they run in a thread, as in FastAPI."""
    threads = list[bool]()

    def note(value: int) -> int:
        threads.append(threading.current_thread() is threading.main_thread())
        return value

    def answer() -> int:
        return 1

    app, plain = make_app(), make_app(last=[])
    for each in (app, plain):
        each.add_api_route("/answer", answer, response_model=Annotated[int, AfterValidator(note)])
        assert (await get(each, "/answer")).json() == 1
    assert threads == [False, False]
    assert served == ["/answer"]


async def test_routes_are_compiled_when_the_app_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lifespan compiles the routes once, so that the first request does not wait for it."""
    compiled = list[int]()
    compile_all = CompiledRoutes._compile

    def note(self: CompiledRoutes) -> None:
        compile_all(self)
        compiled.append(len(self._compiled))

    monkeypatch.setattr(CompiledRoutes, "_compile", note)
    app = make_app()
    sent = await converse(app, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [each["type"] for each in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert compiled == [2]
    assert (await get(app, "/one")).json() == 1
    assert compiled == [2]


async def test_websockets_and_streams_pass_through(served: list[str]) -> None:
    """A WebSocket, a stream and background tasks of a returned response work in an app with compiled routes."""
    app, done = make_app(), list[str]()

    @app.websocket("/socket")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))

    @app.get("/later")
    async def later() -> PlainTextResponse:
        return PlainTextResponse("soon", background=BackgroundTask(done.append, "done"))

    scope = {"type": "websocket", "path": "/socket", "root_path": "", "headers": [], "query_string": b""}
    sent = await converse(app, scope, {"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"})
    assert [each.get("text") for each in sent] == [None, "hello"]
    assert (await get(app, "/stream")).text == "ab"
    assert (await get(app, "/later")).text == "soon"
    assert done == ["done"]
    assert served == ["/stream", "/later"]
