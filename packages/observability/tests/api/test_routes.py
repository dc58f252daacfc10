"""The route table and the router find the same route for every path, method and prefix."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import MatchedRoute, endpoints_of, matched_route, route_table
from tequipy_observability.api.routes import NO_ROUTE


class Compare:
    """A middleware that records the table's result and the router's choice."""

    def __init__(self, app: ASGIApp, *, noted: list[tuple[MatchedRoute, object]]) -> None:
        self._app = app
        self._noted = noted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = scope.get("endpoint")  # the endpoint of an app that mounts this one
        route = matched_route(scope)
        await self._app(scope, receive, send)
        chosen = scope.get("endpoint")
        self._noted.append((route, None if chosen is before else chosen))


def endpoint(name: str) -> Callable[[], Any]:
    """Return a new endpoint."""

    async def serve() -> str:
        return name

    serve.__name__ = name
    return serve


async def plain(_: Request) -> PlainTextResponse:
    """Serve a plain Starlette route."""
    return PlainTextResponse("plain")


def build_app() -> tuple[FastAPI, list[tuple[MatchedRoute, object]]]:
    """Return an app with routes of every kind, some of which shadow others, and the list that `Compare` fills."""
    noted = list[tuple[MatchedRoute, object]]()
    app = FastAPI(middleware=[Middleware(Compare, noted=noted)])
    inner, outer = APIRouter(prefix="/users"), APIRouter()
    inner.add_api_route("/me", endpoint("me"))
    inner.add_api_route("/{id}", endpoint("user"))
    inner.add_api_route("/{id}", endpoint("rename"), methods=["PATCH"])
    inner.add_api_route("/last", endpoint("hidden"))
    outer.add_api_route("/login", endpoint("login"), methods=["POST"])
    outer.include_router(inner, prefix="/all")
    app.add_api_route("/health", endpoint("health"))
    app.include_router(outer, prefix="/api/v1")
    app.include_router(inner)
    app.add_api_route("/files/{name:path}", endpoint("file"))
    app.add_api_route("/numbers/{number:int}", endpoint("number"))
    app.add_api_route("/both", endpoint("read"))
    app.add_api_route("/both", endpoint("write"), methods=["POST", "PUT"])
    app.add_api_route("/with/slash/", endpoint("slash"))
    app.add_api_route("/dots.and+signs", endpoint("dots"))
    app.add_api_websocket_route("/socket", endpoint("socket"))
    app.router.routes.append(Route("/plain", plain))
    app.router.routes.append(Host("other.example", PlainTextResponse("hosted")))
    app.mount("/mounted", PlainTextResponse("mounted"))
    return app, noted


def mounted() -> tuple[FastAPI, list[tuple[MatchedRoute, object]]]:
    """Return the same app mounted below a prefix of another app."""
    app, noted = build_app()
    outer = FastAPI()
    outer.mount("/svc/v2", app)
    return outer, noted


APPS = {"alone": build_app(), "root path": build_app(), "mounted": mounted()}
PREFIXES = {"alone": [""], "root path": ["", "/svc/v2"], "mounted": ["/svc/v2"]}

PATHS = st.sampled_from(
    [
        "/health",
        "/api/v1/login",
        "/api/v1/all/users/me",
        "/users/me",
        "/users/last",
        "/users/7",
        "/files/a/b",
        "/numbers/7",
        "/numbers/" + "7" * 30,
        "/both",
        "/with/slash/",
        "/dots.and+signs",
        "/dotsXand+signs",
        "/socket",
        "/plain",
        "/hosted",
        "/mounted",
        "/mounted/x",
        "/nowhere",
        "/",
    ]
)
PIECES = st.sampled_from(
    ["\n", "\r", "\0", "/", "//", ";", ";a=b", ".", "/..", "/.", "%0A", "%2F", "%", "?", "#", " ", "ä", "\\", "E"]
)


@st.composite
def odd_paths(draw: st.DrawFn) -> str:
    """Return a decoded path: that of a route, with text inserted or its case changed."""
    path = draw(PATHS)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(path)) | st.just(len(path)))
        path = path[:place] + draw(PIECES) + path[place:]
    return draw(st.sampled_from([path, path.upper(), path.rstrip("/"), f"{path}/"]))


async def ask(app: FastAPI, method: str, path: str, *, host: str = "test", root_path: str = "") -> Message:
    """Send a request without a client, which would normalise its path; return the start of the response."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(
        {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": root_path,
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"host", host.encode())],
        },
        receive,
        send,
    )
    return sent[0]


@pytest.mark.parametrize("kind", APPS)
@given(data=st.data())
def test_the_table_and_the_router_agree(kind: str, data: st.DataObject) -> None:
    """For any path, method and host, both find the same endpoint, 405 included, or none."""
    app, noted = APPS[kind]
    path = data.draw(st.sampled_from(PREFIXES[kind])) + data.draw(odd_paths())
    method = data.draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "ODD"]))
    host = data.draw(st.sampled_from(["test", "other.example"]))
    noted.clear()
    asyncio.run(ask(app, method, path, host=host, root_path="/svc/v2" if kind == "root path" else ""))
    for route, chosen in noted:  # empty if another app served the request
        if isinstance(chosen, PlainTextResponse):
            assert route is not NO_ROUTE
            assert route.endpoint is None
        else:
            assert route.endpoint is chosen
    if kind != "mounted":
        assert noted


@pytest.mark.parametrize("number", ["7" * 5_000])
async def test_the_table_converts_no_parameters(number: str) -> None:
    """The table converts no parameters, so a number of 5,000 digits has a route, whose template has no convertor."""
    app, _ = build_app()
    scope: Scope = {"type": "http", "method": "GET", "path": f"/numbers/{number}"}
    assert route_table(app).match(scope).template == "/numbers/{number}"


async def test_a_mounted_app_has_a_table_of_its_own() -> None:
    """The route that an outer app has matched is not used by the inner app's table."""
    inner, noted = build_app()
    outer_noted = list[tuple[MatchedRoute, object]]()
    outer = FastAPI(middleware=[Middleware(Compare, noted=outer_noted)])
    outer.mount("/svc", inner)
    await ask(outer, "GET", "/svc/health")
    assert [route.template for route, _ in noted] == ["/health"]
    assert [route.template for route, _ in outer_noted] == ["/svc"]


async def test_routes_may_be_added() -> None:
    """A route that is added after the first request is found."""
    app, _ = build_app()
    scope: Scope = {"type": "http", "method": "GET", "path": "/late", "headers": []}
    assert route_table(app).match(dict(scope)) is NO_ROUTE
    late = endpoint("late")
    app.add_api_route("/late", late)
    assert route_table(app).match(dict(scope)).endpoint is late


async def test_an_endpoint_need_not_be_hashable() -> None:
    """A route whose endpoint is not hashable has a template, but no endpoint in the table."""

    class Endpoint:
        __hash__ = None  # type: ignore[assignment]  # -- as in a dataclass with eq

        async def __call__(self) -> None: ...

    app = FastAPI()
    app.add_api_route("/x", Endpoint())
    route = route_table(app).match({"type": "http", "method": "GET", "path": "/x"})
    assert (route.template, route.endpoint) == ("/x", None)


def test_the_table_does_not_grow_with_requests() -> None:
    """The table's size depends on the routes of the app and not on the requests."""
    app, _ = build_app()
    table = route_table(app)
    table.match({"type": "http", "method": "GET", "path": "/", "headers": []})
    held = len(table._literals), len(table._entries), len(table._patterns)
    for number in range(1_000):
        table.match({"type": "http", "method": "GET", "path": f"/users/{number}", "headers": []})
    assert (len(table._literals), len(table._entries), len(table._patterns)) == held


def test_endpoints_of_a_router_are_those_of_all_it_includes() -> None:
    """`endpoints_of` returns the endpoints of all included routers."""
    inner, outer = APIRouter(), APIRouter()
    one, other = endpoint("one"), endpoint("other")
    inner.add_api_route("/one", one)
    outer.include_router(inner, prefix="/in")
    outer.add_api_route("/other", other)
    assert endpoints_of(outer) == [one, other]


@given(odd_paths(), st.sampled_from(["", "/svc", "/a/b"]), st.sampled_from([b"", b"a=1&b=%2F", b'\xff"<x']))
@example("/api/v1/login//", "", b"")
def test_a_slash_redirect_leads_to_a_route_of_this_host(path: str, prefix: str, query: bytes) -> None:
    """A slash redirect is relative and ASCII, and a client that follows it reaches a route."""
    app, _ = APPS["alone"]
    table = route_table(app)
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query,
        "headers": [],
    }
    location = table.slash_redirect(scope)
    if location is None or table.match(dict(scope)) is not NO_ROUTE:
        return
    assert location.isascii()
    assert location.isprintable()
    assert location.startswith(("./", "../"))
    there = urlsplit(urljoin(f"https://host.example{prefix}{quote(path)}", location))
    assert (there.scheme, there.netloc) == ("https", "host.example")
    assert bool(there.query) == bool(query)
    reached = {**scope, "path": unquote(there.path).removeprefix(prefix)}
    assert table.match(reached) is not NO_ROUTE, (path, location, there)
