"""The innermost middleware of an app with compiled routes: serves those, and leaves all else to FastAPI."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api import MatchedRoute, matched_route, route_table
from tequipy_platform.web.compiled.internals import (
    BODY_LIMIT_KEY,
    TELEMETRY_KEY,
    Internals,
    NotSimple,
    internals_for,
    remember_context,
)
from tequipy_platform.web.compiled.route import SAFE_CONVERTORS, CompiledRoute

_LENGTH: Final = b"content-length"
_BEGUN: Final[Message] = {"type": "http.response.start"}
"""Tells Starlette's error handling that the answer had begun before the error; never sent."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouteReport:
    """How a route is served; `reason` says why FastAPI serves it, and is None for a compiled route."""

    method: str
    path: str
    reason: str | None


class CompiledRoutes:
    """Serves simple routes by compiled code; list it last.

    Answers are FastAPI's, byte for byte. A route or a request that is not simple is left to FastAPI, and so is each one
    if routes are not compiled for this version of FastAPI, or if another library has changed it; one warning says so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._fastapi: Any = None
        self._internals: Internals | None = None
        self._table: Any = None
        self._entries: list[Any] | None = None
        self._compiled: dict[MatchedRoute, CompiledRoute] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; the first one, which is the lifespan of a served app, compiles the routes."""
        if self._fastapi is None:
            self._start(scope["app"])
        if scope["type"] == "http" and self._internals is not None:
            route = self._find(scope)
            if route is not None:
                await self._serve(route, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _start(self, app: FastAPI) -> None:
        self._fastapi = app
        try:
            self._internals = internals_for(app, self._app)
        except NotSimple as reason:
            logger.warning("routes_not_compiled", extra={"reason": str(reason)})
        else:
            self._compile()

    def _find(self, scope: Scope) -> CompiledRoute | None:
        """Return the route of a request that is as simple as the route, with the scope that FastAPI's router sets."""
        if self._table is None or self._table.entries is not self._entries:  # routes have been added
            self._compile()
        route = self._compiled.get(matched_route(scope))
        if route is None or scope["method"] not in route.methods:
            return None
        if self._fastapi.dependency_overrides or TELEMETRY_KEY in scope or BODY_LIMIT_KEY in scope:
            return None
        parameters = dict(scope.get("path_params", ()))
        if route.pattern is not None:
            try:
                parameters |= route.parameters(route.pattern, get_route_path(scope))
            except Exception:  # noqa: BLE001 -- of a convertor: FastAPI's router meets it again
                return None
        scope["path_params"] = parameters
        scope.setdefault("router", self._fastapi.router)
        scope["route"] = route.original
        scope["endpoint"] = route.endpoint
        if route.context is not None:
            remember_context(scope, route.context)
        return route

    async def _serve(self, route: CompiledRoute, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            answer = await route.answer(request)
            if type(answer) is bytes:
                begun = True
                fields = [(_LENGTH, b"%d" % len(answer)), *route.start_fields]
                await send({"type": "http.response.start", "status": route.status, "headers": fields})
                await send({"type": "http.response.body", "body": answer})
            else:
                await answer(scope, receive, send_noted)  # type: ignore[operator]  # -- a response, as it is not bytes
        except Exception as error:  # noqa: BLE001 -- handled as in Starlette, or raised again
            await self._handle(error, request, receive, send, begun=begun)

    async def _handle(self, error: Exception, request: Request, receive: Receive, send: Send, *, begun: bool) -> None:
        """Handle an error as Starlette does: around the route, and again around the router."""

        async def fail(_: Scope, __: Receive, send: Send) -> None:
            if begun:
                await send(_BEGUN)
            raise error

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            assert self._internals is not None  # noqa: S101 -- otherwise no route is compiled
            await self._internals.handle_exceptions(fail, request)(scope, receive, send)

        async def send_rest(message: Message) -> None:
            if message is not _BEGUN:
                await send(message)

        handling: Any = copy.copy(self._app)  # with the handlers of the app
        handling.app = serve
        await handling(request.scope, receive, send_rest)

    def _compile(self) -> None:
        self._table = route_table(self._fastapi)
        self._entries = self._table.entries
        self._compiled = {
            entry.route: outcome
            for entry, outcome in _compile(self._fastapi, self._internals)
            if isinstance(outcome, CompiledRoute)
        }


def route_reports(app: FastAPI) -> list[RouteReport]:
    """Return how each route of an app is served, in the router's order."""
    internals: Internals | None = None
    reason = "CompiledRoutes is not in the app's middleware"
    if any(isinstance(entry.cls, type) and issubclass(entry.cls, CompiledRoutes) for entry in app.user_middleware):
        try:
            internals = internals_for(app)
        except NotSimple as error:
            reason = str(error)
    reports = list[RouteReport]()
    for entry, outcome in _compile(app, internals):
        why = None if isinstance(outcome, CompiledRoute) else outcome or reason
        reports.extend(RouteReport(method, entry.route.template, why) for method in sorted(entry.methods or {"*"}))
    return reports


def _compile(app: FastAPI, internals: Internals | None) -> Iterator[tuple[Any, CompiledRoute | str]]:
    """Yield each entry of the route table with the compiled route, or the reason why it is not compiled."""
    entries = route_table(app).entries
    for place, entry in enumerate(entries):
        if internals is None:
            yield entry, ""
            continue
        try:
            _check_earlier(entry, entries[:place])
            yield entry, CompiledRoute(entry.context, app, internals)
        except NotSimple as reason:
            yield entry, str(reason)


def _check_earlier(entry: Any, earlier: list[Any]) -> None:  # noqa: ANN401 -- a private type of observability
    """Raise `NotSimple` if an earlier route may match the path, for another method, and fail to convert it."""
    for other in earlier:
        if other.pattern is None or (entry.pattern is not None and other.pattern.pattern == entry.pattern.pattern):
            continue
        if entry.literal and not other.pattern.match(entry.route.template):
            continue
        ours, theirs = (each.route.template.partition("{")[0] for each in (entry, other))
        if not ours.startswith(theirs) and not theirs.startswith(ours):
            continue
        if not all(type(convertor) in SAFE_CONVERTORS for convertor in other.context.param_convertors.values()):
            raise NotSimple("an earlier route whose convertor can fail may match the path")
