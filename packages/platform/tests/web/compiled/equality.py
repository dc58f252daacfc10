"""Compares the answers of compiled routes with FastAPI's own; also a program, for environments with another FastAPI."""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import fastapi.routing
import hypothesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from starlette.middleware import Middleware

from tequipy_platform.web import CompiledRoutes

from .generated import Built, Parameter, RouteSpec, routes
from .known import KNOWN
from .samples import NAMES, PREFIXES

VALUES = ["1", "7", "", "x", "red", "a", "true", "2024-02-29", "-1", "1.5", "null", "[1,2]", "é", "%", "a/b", "9" * 30,
          "12345678-1234-5678-1234-567812345678", "\n", "name", "0"]  # fmt: skip
FITTING = {"int": ["7", "9" * 5000], "uuid": [VALUES[16]]}
BODIES = [
    b"", b"{}", b"null", b"1", b"[]", b"[1, 2]", b'{"name": "n"}', b'{"number": 3}', b'{"number": -3, "more": 1}',
    b'{"item": {"name": "n"}, "q": 1}', b'[{"name": "n", "thePrice": "2.5"}]', b'{"name": "n", "price": "x"}',
    b'{"a": 1', b"\xff\xfe", b'{"a": NaN}', b'"\\ud800"', b'{"a": 1, "a": 2}', '{"name": "é"}'.encode("utf-16"),
    b"9" * 5000, b"[" * 3000, b'{"name": "' + b"x" * 300 + b'"}',
]  # fmt: skip
TYPES = [None, "application/json", "application/json", "application/problem+json", "application/json; charset=utf-8",
         "text/plain", "APPLICATION/JSON", "application/x-www-form-urlencoded", "", "multipart/form-data"]  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, specs: list[RouteSpec]) -> dict[str, Any]:
    """Return a request: mostly one that a route serves, with right, wrong, missing and hostile values."""
    value = st.sampled_from(VALUES)
    spec = draw(st.sampled_from(specs))
    path = PREFIXES[spec.place] + spec.path
    for name, _, convertor in re.findall(r"({\w+(:(\w+))?})", path):
        fitting = FITTING.get(convertor, ["1", "x", "true", VALUES[-1]])
        path = path.replace(name, draw(st.sampled_from(fitting * 4) | value), 1)
    path = draw(st.sampled_from([path] * 20 + [f"{path}/", "/none", path.removeprefix("/api"), f"{path}\n"]))
    pairs = st.lists(st.tuples(st.sampled_from([*NAMES, "X-Other", "first", "limit", "tags"]), value), max_size=2)
    sent: dict[str, list[tuple[str, str]]] = {"query": draw(pairs), "header": draw(pairs), "cookie": draw(pairs)}
    for parameter in parameters_of(spec):
        source = (
            parameter.source.partition(" ")[0]
            .replace("plain", "query")
            .replace("json", "query")
            .replace("checked", "query")
        )
        if source in sent and draw(st.integers(0, 5)):
            alias = parameter.alias if isinstance(parameter.alias, str) else parameter.name
            sent[source].append((alias, draw(st.sampled_from(["1", "2", "red", "a", "true"]) | value)))
    headers = [(name.replace("_", "-").lower().encode(), each.encode("latin-1")) for name, each in sent["header"]]
    if sent["cookie"]:
        headers.append((b"cookie", "; ".join(f"{name}={each}" for name, each in sent["cookie"]).encode("latin-1")))
    if (content_type := draw(st.sampled_from(TYPES))) is not None:
        headers.append((b"content-type", content_type.encode()))
    if draw(st.booleans()):
        headers.append((b"authorization", draw(st.sampled_from([b"Bearer abc", b"Basic x", b"", b"Bearer"]))))
    method = spec.options.get("methods", ["GET"])[0]
    return {
        "method": draw(st.sampled_from([method] * 20 + ["HEAD", "OPTIONS", "POST", "BREW"])),
        "path": path,
        "query": "&".join(f"{quote(name)}={quote(each)}" for name, each in sent["query"]).encode(),
        "headers": headers,
        "body": draw(st.sampled_from(BODIES)),
        "cut": draw(st.sampled_from(["whole"] * 6 + ["pieces", "disconnect"])),
        "root_path": draw(st.sampled_from(["", "", "", "", "/api", "/svc"])),
    }


def parameters_of(spec: RouteSpec) -> Iterator[Parameter]:
    """Yield all parameters of a route and of its dependencies."""
    pending = [*spec.function.parameters, *(spec.extra.parameters if spec.extra else ())]
    while pending:
        parameter = pending.pop()
        yield parameter
        pending += parameter.of.parameters if parameter.of else ()


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[RouteSpec], list[dict[str, Any]]]:
    """Return routes and requests for them."""
    specs = draw(st.lists(routes, min_size=1, max_size=4))
    return specs, draw(st.lists(requests(specs), min_size=4, max_size=12))


async def exchange(app: FastAPI, request: dict[str, Any]) -> list[Any]:
    """Return the messages of the answer, and the error that reached the server."""
    body, cut = request["body"], request["cut"]
    first = {"type": "http.request", "body": body[:3], "more_body": True}
    messages = {
        "whole": [{"type": "http.request", "body": body}],
        "pieces": [first, {"type": "http.request", "body": body[3:]}],
        "disconnect": [first],
        "gone": [],
    }[cut]
    sent = list[Any]()

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": request["method"],
        "path": request["path"],
        "raw_path": quote(request["path"]).encode(),
        "query_string": request["query"],
        "headers": list(request["headers"]),
        "root_path": request["root_path"],
        "server": ("test", 80),
        "client": ("client", 1),
    }
    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 -- compared
        sent.append((type(error).__name__, str(error).split(" at 0x", maxsplit=1)[0]))
    return [json.loads(json.dumps(each, default=repr)) for each in sent]


class Comparison:
    """Counts what has been compared."""

    def __init__(self) -> None:
        self.counts = Counter[str](routes=0, compiled=0, requests=0, served=0, differences=0)
        self.statuses = Counter[Any]()

    def run(self, examples: int, *, derandomize: bool = True) -> None:
        """Compare generated apps; raise `AssertionError` at the smallest difference."""

        @hypothesis.settings(
            max_examples=examples, deadline=None, derandomize=derandomize, database=None,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(cases())
        def compare(case: tuple[list[RouteSpec], list[dict[str, Any]]]) -> None:
            asyncio.run(self._compare(*case))

        compare()

    def run_known(self) -> None:
        """Compare the cases that were written by hand."""
        for specs, sent in KNOWN:
            asyncio.run(self._compare(specs, sent))

    async def _compare(self, specs: list[RouteSpec], sent: list[dict[str, Any]]) -> None:
        counts = self.counts
        # FastAPI keeps what it tells about endpoints by their id, which another function has after they are freed.
        vars(fastapi.routing).get("_endpoint_context_cache", {}).clear()
        plain, compiled = Built(specs), Built(specs, middleware=[Middleware(self._counting())])
        counts["routes"] += len(specs) - compiled.skipped
        for request in sent:
            counts["requests"] += 1
            served = counts["served"]
            expected, found = await exchange(plain.app, request), await exchange(compiled.app, request)
            if counts["served"] > served:
                self.statuses[expected[0]["status"] if isinstance(expected[0], dict) else expected[0][0]] += 1
            if (expected, plain.log) != (found, compiled.log):
                counts["differences"] += 1
                raise AssertionError(f"{request}\nFastAPI:  {expected} {plain.log}\ncompiled: {found} {compiled.log}")
            plain.log.clear()
            compiled.log.clear()

    def _counting(self) -> Any:
        counts = self.counts

        class Counting(CompiledRoutes):
            async def _serve(self, *arguments: Any) -> None:
                counts["served"] += 1
                await super()._serve(*arguments)

            def _compile(self) -> None:
                super()._compile()
                counts["compiled"] += len(self._compiled)

        return Counting

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"FastAPI {fastapi.__version__}: {counts}; statuses of served ones: {dict(self.statuses)}"


if __name__ == "__main__":
    comparison = Comparison()
    try:
        comparison.run_known()
        comparison.run(int(sys.argv[1]))
    finally:
        print(comparison)
