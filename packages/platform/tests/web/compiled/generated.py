"""Generated routes and requests: hypothesis draws a description, from which the same app can be built twice."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Depends, FastAPI, Header, HTTPException, Path, Query
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer, SecurityScopes
from hypothesis import strategies as st
from pydantic import AliasChoices, Json
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse

from .samples import (
    ANSWERS,
    BODIES,
    DEFAULTS,
    EFFECTS,
    LISTS,
    NAMES,
    OPTIONS,
    PATHS,
    PREFIXES,
    REQUIRED,
    RESULTS,
    SCALARS,
    SPECIAL,
    Filters,
    KnownError,
    UnknownError,
)


@dataclass(frozen=True)
class Parameter:
    source: str
    name: str
    kind: Any
    default: Any = REQUIRED
    alias: Any = None
    of: "Function | None" = None
    cached: bool = True


@dataclass(frozen=True)
class Function:
    """A dependency or an endpoint."""

    name: str
    parameters: tuple[Parameter, ...]
    effect: str
    is_async: bool
    result: Any
    shape: str = "function"


@dataclass(frozen=True)
class RouteSpec:
    path: str
    function: Function
    answer: Any
    options: dict[str, Any] = field(hash=False)
    place: str = "app"
    extra: Function | None = None


@cache
def parameters(depth: int) -> st.SearchStrategy[Parameter]:
    """Return parameters of every source; dependencies down to `depth`."""
    name = st.sampled_from(NAMES)
    default = st.sampled_from(DEFAULTS)
    alias = st.sampled_from([None, None, None, "q", "X-Other", AliasChoices("first", "q")])
    kinds = st.sampled_from(SCALARS + LISTS)
    simple = [
        st.builds(Parameter, st.sampled_from(["query", "header", "cookie"]), name, kinds, default, alias),
        st.builds(Parameter, st.sampled_from(["path", "plain", "checked"]), name, st.sampled_from(SCALARS), default),
        st.builds(Parameter, st.sampled_from(["body", "embedded"]), name, st.sampled_from(BODIES), default),
        st.builds(Parameter, st.sampled_from(["query model", "header model", "json"]), name, st.just(Filters)),
        st.builds(
            Parameter,
            st.sampled_from(SPECIAL),
            name,
            st.none(),
        ),
    ]
    if depth:
        of = st.one_of(functions(depth - 1), *SHARED[:depth], *SHARED[:depth])
        cached = st.sampled_from([True, True, False])
        dependency = st.builds(Parameter, st.just("depends"), name, st.none(), of=of, cached=cached)
        simple += [dependency, dependency]
    return st.one_of(simple)


@st.composite
def one_parameter(draw: st.DrawFn, depth: int) -> Parameter:
    """Draw from `parameters`; its repr is short, and hypothesis warns, which fails, when it needs a long one."""
    return draw(parameters(depth))


def functions(depth: int) -> st.SearchStrategy[Function]:
    return st.builds(
        Function,
        st.sampled_from(["one", "two", "three"]),
        st.lists(one_parameter(depth), max_size=4 if depth else 2, unique_by=lambda each: each.name).map(tuple),
        st.sampled_from(EFFECTS),
        st.sampled_from([True, True, True, False]),
        st.sampled_from(RESULTS),
        st.sampled_from(["function"] * 20 + ["object", "yield"]),
    )


# Drawn once in an app, so that several routes and dependencies share them.
SHARED = [
    st.shared(st.deferred(lambda: functions(0)), key="leaf"),
    st.shared(st.deferred(lambda: functions(1)), key="branch"),
]
routes = st.builds(
    RouteSpec,
    st.sampled_from(PATHS),
    functions(2),
    st.sampled_from(ANSWERS),
    st.sampled_from(OPTIONS),
    st.sampled_from([*PREFIXES, "app"]),
    st.one_of(st.none(), functions(1)),
)


class Built:
    """An app built from a description; `log` lists the calls and their arguments."""

    def __init__(self, specs: list[RouteSpec], *, middleware: Sequence[Middleware] = ()) -> None:
        self.log: list[str] = []
        self._functions: dict[int, Callable[..., Any]] = {}
        self.skipped = 0
        self.app, mounted = (FastAPI(telemetry=OFF, middleware=[*middleware]) for _ in range(2))
        self.app.add_exception_handler(KnownError, self._handle_known)
        self.app.add_exception_handler(418, self._handle_teapot)
        self.app.add_exception_handler(RequestValidationError, self._handle_invalid)
        inner, outer = (
            APIRouter(prefix="/inner", strict_content_type=False),
            APIRouter(prefix="/outer", dependencies=[Depends(self._of_router)]),
        )
        targets: dict[str, Any] = {"app": self.app, "mounted": mounted, "nested": outer}
        outer.include_router(inner)
        for spec in specs:
            self._add(targets.get(spec.place, inner), spec)
        self.app.include_router(inner)
        self.app.include_router(outer, prefix="/api")
        self.app.mount("/mounted/{tenant}", mounted)

    def _add(self, target: Any, spec: RouteSpec) -> None:
        extra = [Depends(self._function(spec.extra))] if spec.extra else []
        model = {} if spec.answer is None else {"response_model": spec.answer}
        try:
            target.add_api_route(
                spec.path, self._function(spec.function), **({"dependencies": extra} | model | spec.options)
            )
        except (AssertionError, ValueError, TypeError, RuntimeError):  # a combination that FastAPI refuses
            self.skipped += 1

    def _function(self, spec: Function) -> Callable[..., Any]:
        if id(spec) in self._functions:
            return self._functions[id(spec)]
        log = self.log
        names = {parameter.source: parameter.name for parameter in spec.parameters}

        def act(arguments: dict[str, Any]) -> Any:
            log.append(f"{spec.name} { ({name: shown(value) for name, value in sorted(arguments.items())}) }")
            if spec.effect == "count":
                return len(log)
            for value in arguments.values():
                if spec.effect == "mutate" and isinstance(value, list):
                    value.append(9)
            return perform(spec, arguments.get(names.get("response", "")))

        async def generate(**arguments: Any) -> Any:
            yield act(arguments)
            log.append("closed")

        async def serve(**arguments: Any) -> Any:
            return act(arguments)

        def serve_in_thread(**arguments: Any) -> Any:
            return act(arguments)

        call: Any = generate if spec.shape == "yield" else serve if spec.is_async else serve_in_thread
        call.__signature__ = inspect.Signature([self._parameter(each) for each in spec.parameters])
        function: Callable[..., Any] = (
            type("Caller", (), {"__call__": staticmethod(call)})() if spec.shape == "object" else call
        )
        self._functions[id(spec)] = function
        return function

    def _parameter(self, spec: Parameter) -> inspect.Parameter:
        default = inspect.Parameter.empty if spec.default is REQUIRED else spec.default
        annotation: Any
        marker = {"query": Query, "header": Header, "cookie": Cookie, "body": Body}.get(spec.source)
        if spec.of is not None:
            annotation = Annotated[Any, Depends(self._function(spec.of), use_cache=spec.cached)]
            default = inspect.Parameter.empty
        elif marker is Body:
            annotation = Annotated[spec.kind, Body()]
        elif spec.source == "checked":
            annotation = Annotated[spec.kind, Query(validate_default=True)]
        elif spec.source == "embedded":
            annotation = Annotated[spec.kind, Body(embed=True)]
        elif marker is not None:
            names = {"validation_alias": spec.alias} if isinstance(spec.alias, AliasChoices) else {"alias": spec.alias}
            annotation = Annotated[spec.kind, marker(**names)]
        elif spec.source == "path":
            annotation, default = Annotated[spec.kind, Path()], inspect.Parameter.empty
        elif spec.source == "plain":
            annotation = spec.kind
        elif spec.source.endswith("model"):
            annotation = Annotated[Filters, Query() if spec.source == "query model" else Header()]
        else:
            annotation = {
                "json": Annotated[Json[list[int]], Query()], "request": Request, "connection": HTTPConnection,
                "response": Response, "tasks": BackgroundTasks, "scopes": SecurityScopes,
                "bearer": Annotated[Any, Depends(BEARER)],
            }[spec.source]  # fmt: skip
            default = inspect.Parameter.empty
        return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    async def _of_router(self, q: int = 5) -> int:
        self.log.append(f"router {q}")
        return q

    async def _handle_invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        self.log.append(f"invalid {error.body!r} {error}")
        return await request_validation_exception_handler(request, error)

    async def _handle_known(self, request: Request, error: Exception) -> Response:
        self.log.append(f"handled {request.scope['path_params']} {error}")
        if "http" in str(error):
            raise HTTPException(409, "from the handler")
        return JSONResponse({"known": str(error)}, 422)

    def _handle_teapot(self, _: Request, error: Exception) -> Response:
        return PlainTextResponse(f"teapot {error}", 418)


OFF: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
BEARER = HTTPBearer(auto_error=False)


def shown(value: Any) -> str:
    """Return a text that is equal for equal arguments of two apps."""
    if isinstance(value, HTTPConnection):
        route = value.scope.get("route")
        return f"request {value.scope['path_params']} {route and route.path} {value.scope.get('root_path')}"
    if isinstance(value, Response | BackgroundTasks | SecurityScopes):
        return type(value).__name__
    return f"{type(value).__name__} {value!r}".split(" at 0x", maxsplit=1)[0]


def perform(spec: Function, response: Response | None) -> Any:
    """Do what a generated function does."""
    effect = spec.effect
    if response is not None and effect == "header":
        response.headers["X-Set"] = spec.name
    elif response is not None and effect == "cookie":
        response.set_cookie("seen", spec.name)
    elif response is not None and effect in {"status", "wrong status"}:
        response.status_code = 202 if effect == "status" else 204
    errors = {
        "http error": HTTPException(403, "no"), "raised with headers": HTTPException(418, headers={"X-Tea": "green"}),
        "known error": KnownError(spec.name if spec.is_async else "http"), "unknown error": UnknownError(spec.name),
    }  # fmt: skip
    if effect in errors:
        raise errors[effect]
    if effect == "json response":
        return JSONResponse({"own": True}, 299, headers={"X-Own": "1"})
    if effect == "text response":
        return PlainTextResponse("own")
    if effect.endswith("stream"):
        return StreamingResponse(stream(failing=effect.startswith("failing")), headers={"X-Stream": "1"})
    return spec.result


async def stream(*, failing: bool) -> Any:
    yield b"one"
    if failing:
        raise KnownError("late")
    yield b"two"
