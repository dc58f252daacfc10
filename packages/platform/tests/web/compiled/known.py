"""Cases written by hand: each rule that generated cases meet too seldom."""

from typing import Any
from urllib.parse import quote

from pydantic import AliasChoices

from .generated import Function, Parameter, RouteSpec
from .samples import Deferred, Item, Strict

Case = tuple[list[RouteSpec], list[dict[str, Any]]]
JSON = [(b"content-type", b"application/json")]


def function(name: str, *parameters: Parameter, effect: str = "nothing", result: Any = 1, **rest: Any) -> Function:
    return Function(name, parameters, effect, rest.pop("is_async", True), result, **rest)


def depends(name: str, of: Function, *, cached: bool = True) -> Parameter:
    return Parameter("depends", name, None, of=of, cached=cached)


def route(endpoint: Function, answer: Any = Any, path: str = "/a", place: str = "app", **options: Any) -> RouteSpec:
    return RouteSpec(path, endpoint, answer, options, place)


def request(path: str = "/a", query: str = "", method: str = "GET", **rest: Any) -> dict[str, Any]:
    basic = {"headers": [], "body": b"", "cut": "whole", "root_path": ""}
    return {"method": method, "path": path, "query": query.encode(), **basic, **rest}


Q, TOKEN = Parameter("query", "q", int), Parameter("header", "x_token", int)
LEAF = function("leaf", Q)
BELOW = function("below", depends("leaf", LEAF))
ABOVE = function("above", depends("leaf", LEAF), TOKEN)
COUNT = function("count", effect="count")
SENT = [request(), request(query="q=x"), request(query="q=1"), request(query="q=1", headers=[(b"x-token", b"2")])]


def shared() -> list[Case]:
    """Return cases of dependencies that several others use."""
    twice = function("end", depends("a", BELOW), depends("b", ABOVE), depends("c", LEAF), depends("d", ABOVE))
    failing = function("end", depends("a", COUNT), depends("b", BELOW), depends("c", COUNT, cached=False), TOKEN)
    counted = [
        function("end", *(depends(f"v{number}", COUNT, cached=cached) for number, cached in enumerate(order)))
        for order in [(True, True), (False, True), (True, False, True), (False, False, True)]
    ]
    above = function("uncached above", depends("value", COUNT, cached=False))
    again = function("end", depends("a", above), depends("b", above))
    return [([route(end)], SENT) for end in (twice, failing, *counted, again)]


def sources() -> list[Case]:
    """Return cases of parameters."""
    headers = function("end", Parameter("header", "x_token", str, None, AliasChoices("first", "q")), Q)
    order = function("end", TOKEN, Parameter("cookie", "flag", int), Parameter("path", "id", int), Q)
    queries = function("end", Parameter("query", "x_token", str, "none", AliasChoices("first", "q")))
    lists = function("end", Parameter("query", "q", list[int], [1]), Parameter("header", "flag", list[str]))
    changed = function("end", Parameter("query", "q", list[int], [1]), effect="mutate")
    checked = function("end", Parameter("checked", "q", int, "x"))
    named = function("end", Parameter("query", "func", int), is_async=False)
    below = function("end", depends("value", function("dependency", Parameter("query", "func", int), is_async=False)))
    special = function("end", *(Parameter(each, each, None) for each in ("request", "connection", "bearer")))
    sent = [
        *SENT, request(query="q=1&q=2"), request(headers=[(b"q", b"1"), (b"first", b"2"), (b"flag", b"a")]),
        request(headers=[(b"flag", b"a"), (b"flag", b"b"), (b"cookie", b"flag=3")]), request(),
        request(query="q=3", headers=[(b"q", b"1")]), request(query="func=1"),
        request(query="first=2&q=3", headers=[(b"x-token", b"")]),
    ]  # fmt: skip
    return [([route(end)], sent) for end in (headers, order, queries, lists, changed, checked, special, named, below)]


def bodies() -> list[Case]:
    """Return cases of request bodies."""
    one = function("end", Parameter("body", "item", Strict), depends("leaf", LEAF))
    maybe = function("end", Parameter("body", "item", Item | None, None))
    two = function("end", Parameter("body", "item", Strict), Parameter("embedded", "flag", int, 3), TOKEN)
    deferred = function("end", Parameter("body", "item", Deferred))
    contents = [
        b"",
        b'{"number": 1}',
        b'{"number": -1}',
        b'{"item": {"number": 2}}',
        b"null",
        b"[",
        b"\xff",
        b'"\\ud800"',
    ]
    types = ["application/json", "application/json; charset=utf-8", "application/x+json", "text/json", "", "text/plain"]
    sent = [
        request(f"{prefix}/a", "q=1", "POST", headers=headers, body=body, cut=cut)
        for prefix, cut in (("", "whole"), ("/inner", "pieces"), ("/inner", "whole"), ("", "disconnect"), ("", "gone"))
        for headers in ([], *([(b"content-type", each.encode())] for each in types))
        for body in contents
    ]
    return [
        ([route(end, methods=["POST"]), route(end, place="included", methods=["POST"])], sent)
        for end in (one, maybe, two, deferred)
    ]


def answers() -> list[Case]:
    """Return cases of responses."""
    item = {"name": "n", "thePrice": 1.5, "extra": 1}
    options: list[dict[str, Any]] = [
        {f"response_model_{name}": value}
        for name, value in {
            "include": {"name"}, "exclude": {"name"}, "exclude_unset": True, "exclude_defaults": True,
            "exclude_none": True, "by_alias": False,
        }.items()
    ]  # fmt: skip
    ends = [function("end", result=item), function("end", result=Item(name="n"), is_async=False)]
    cases: list[Case] = [([route(end, Item, **option)], [request()]) for end in ends for option in (*options, {})]
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (Item, {}), (None, {}), (Item, {"status_code": 201}), (None, {"status_code": 204}),
        (None, {"status_code": 304}),
    ]  # fmt: skip
    for effect in ("header", "cookie", "status", "wrong status", "json response", "text response"):
        setting = function("set", Parameter("response", "response", None), effect=effect)
        ends = [
            function("end", Parameter("response", "response", None), effect=effect, result=item),
            function(
                "end", depends("a", setting), Parameter("response", "response", None), effect="header", result=item
            ),
        ]
        cases += [([route(end, answer, **option)], [request()]) for end in ends for answer, option in kinds]
    for effect in ("http error", "known error", "unknown error", "raised with headers", "stream", "failing stream"):
        ends = [function("end", effect=effect, is_async=is_async) for is_async in (True, False)]
        cases += [([route(end)], [request()]) for end in ends]
    wrong = function("end", result="text")
    sent = [request(root_path="/svc"), request("/mounted/one/a", root_path="/svc")]
    cases += [([route(wrong, Item), route(wrong, Item, place="mounted")], sent)]
    cases += [([route(function("end", result=value), None)], [request()]) for value in (None, item, object(), "\ud800")]
    return cases


def paths() -> list[Case]:
    """Return cases of paths and methods."""
    end = function("end", Parameter("path", "id", str), Parameter("request", "request", None))
    specs = [
        route(end, path="/n/{id:int}", methods=["POST"]), route(end, path="/n/{id}"), route(end, path="/b/{id}"),
        route(end, path="/b/fixed"), route(end, path="/b/fixed", methods=["PUT"]), route(end, path="/u/{id:uuid}"),
        route(end, path="/b/{id}", place="mounted"), route(end, path="/f/{id:path}", place="nested", max_body_size=9),
    ]  # fmt: skip
    wanted = [
        "/n/7", "/n/" + "9" * 5000, "/n/x", "/b/fixed", "/b/x", "/b/x/", "/b/x\n", "/b/a/b", "/mounted/one/b/x",
        "/u/12345678123456781234567812345678", "/api/outer/f/a/b", "/none",
    ]  # fmt: skip
    sent = [
        request(quote(path, safe="/\n"), method=method) for path in wanted for method in ("GET", "PUT", "HEAD", "POST")
    ]
    return [(specs, sent)]


KNOWN = [*shared(), *sources(), *bodies(), *answers(), *paths()]
