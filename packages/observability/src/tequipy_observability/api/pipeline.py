"""The pipeline: one pure ASGI middleware that runs a list of stages, with one wrapper around `send` for all of them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tequipy_observability.api.routes import MatchedRoute, matched_route

HeaderField = tuple[bytes, bytes]
"""A header field in ASGI's form: the name in lower case."""

INTERNAL_SERVER_ERROR: Final = 500


class Head:
    """Status and header fields of a response, before they are sent."""

    __slots__ = ("_names", "fields", "status")

    def __init__(self, status: int, fields: Iterable[HeaderField]) -> None:
        self.status = status
        self.fields = [*fields]
        self._names = {name.lower() for name, _ in self.fields}

    def set(self, field: HeaderField) -> None:
        """Add a field, which replaces all of the same name."""
        if field[0] in self._names:
            self.remove(field[0])
        self.fields.append(field)
        self._names.add(field[0])

    def set_missing(self, fields: Sequence[HeaderField], names: frozenset[bytes]) -> None:
        """Add the fields, which have these names, except those whose name the head has already."""
        if self._names.isdisjoint(names):
            self.fields += fields
        else:
            self.fields += [field for field in fields if field[0] not in self._names]
        self._names |= names

    def remove(self, name: bytes) -> None:
        """Remove all fields of a name."""
        if name in self._names:
            self._names.remove(name)
            self.fields = [field for field in self.fields if field[0].lower() != name]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all fields of a name."""
        return [value for each, value in self.fields if each.lower() == name] if name in self._names else []


HeadHook = Callable[["Exchange", Head], None]


class Exchange:
    """One HTTP request and its response on their way through the stages."""

    __slots__ = (
        "_heads",
        "_route",
        "_send",
        "app",
        "complete",
        "depth",
        "kept",
        "receive",
        "scope",
        "size",
        "started",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, heads: Sequence[Sequence[HeadHook]]) -> None:
        self.scope = scope
        self.receive = receive
        """Returns the messages of the request's body; a stage may replace it."""
        self.app: FastAPI = scope.get("app")  # type: ignore[assignment]  # -- set by FastAPI before any middleware
        """The app that has the pipeline; read at once, because an app that is mounted in it changes the scope."""
        self.status = INTERNAL_SERVER_ERROR
        """The status of the response; 500 while none has started."""
        self.size = 0
        """Bytes of the response's body."""
        self.started = False
        self.complete = False
        self.kept: dict[Stage, Any] = {}
        """What stages keep for this exchange, each under itself."""
        self.depth = 0
        """The number of stages, from the outermost, whose `head` completes a response: all down to its sender."""
        self._heads = heads
        self._route: MatchedRoute | None = None
        self._send = send

    @property
    def route(self) -> MatchedRoute:
        """The route of the request; a stage reads it before the request is passed on, if at all."""
        route = self._route
        if route is None:
            route = self._route = matched_route(self.scope)
        return route

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the response, whose head the stages complete first."""
        kind = message["type"]
        if kind == "http.response.start":
            head = Head(message["status"], message.get("headers", ()))
            for complete in self._heads[self.depth]:
                complete(self, head)  # if it fails, no response has started, and the error can still be answered
            message["headers"] = head.fields
            self.started = True
            self.status = message["status"]
        elif kind == "http.response.body":
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        return self._send(message)

    async def answer(self, response: Response) -> None:
        """Send a response of a stage; this stage and those outside of it complete its head."""
        await response(self.scope, self.receive, self.send)


class Stage:
    """One job around HTTP requests; a class overrides the methods that its job needs, and a pipeline calls only those.

    One stage serves all requests of its app; it keeps what belongs to one of them in `Exchange.kept`.
    """

    active = True
    """Whether the stage does anything; a pipeline calls no method of one that its settings turn off."""

    def before(self, exchange: Exchange) -> Response | Awaitable[Response | None] | None:
        """Return a response to answer the request, or None to pass it on; may be a coroutine function."""

    def head(self, exchange: Exchange, head: Head) -> None:
        """Complete the head of a response of the app, or of a stage inside of this one."""

    async def failed(self, exchange: Exchange, error: BaseException) -> bool:  # noqa: ARG002 -- the default
        """Handle an error that the app or a stage inside of this one raised, and return whether it is settled.

        A stage that settles it answers the request, if no response has started. A cancellation is never settled: it
        continues after its answer.
        """
        return False

    def after(self, exchange: Exchange) -> None:
        """Act at the end of a request that this stage passed on, whether it was answered or failed."""


class Pipeline:
    """Runs the stages around each HTTP request, the first one outermost; other connections pass unchanged.

    List it in the app: `FastAPI(middleware=[Middleware(Pipeline, [SecurityHeaders(), CatchErrors()])])`.
    """

    def __init__(self, app: ASGIApp, stages: Sequence[Stage]) -> None:
        self.app = app
        self.stages = stages
        self._before = [(number, stage.before) for number, stage in _overriding(stages, "before")]
        self._failed = [(number, stage.failed) for number, stage in reversed(_overriding(stages, "failed"))]
        self._after = [(number, stage.after) for number, stage in reversed(_overriding(stages, "after"))]
        heads = [(number, stage.head) for number, stage in reversed(_overriding(stages, "head"))]
        self._heads = [tuple(head for number, head in heads if number < depth) for depth in range(len(stages) + 1)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._heads)
        entered = 0
        try:
            for number, before in self._before:
                entered, exchange.depth = number, number + 1
                response = before(exchange)
                if response is not None and not isinstance(response, Response):
                    response = await response
                if response is not None:
                    await exchange.answer(response)
                    return
            entered = exchange.depth = len(self.stages)
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:  # noqa: BLE001 -- a stage may answer a cancellation too
            await self._fail(exchange, error, entered)
        finally:
            self._end(exchange, entered)

    async def _fail(self, exchange: Exchange, error: BaseException, entered: int) -> None:
        """Offer an error to the stages that the request has entered, innermost first; raise it if none settles it."""
        for number, failed in self._failed:
            if number < entered:
                exchange.depth = number + 1
                try:
                    if await failed(exchange, error) and isinstance(error, Exception):
                        return
                except BaseException as other:  # noqa: BLE001 -- continues with the stages outside of this one
                    error = other
        raise error

    def _end(self, exchange: Exchange, entered: int) -> None:
        """Call the stages that the request has passed; an error of one is logged, and keeps no other from its part."""
        for number, after in self._after:
            if number < entered:
                try:
                    after(exchange)
                except Exception as error:  # noqa: BLE001 -- of the code of a stage
                    structlog.get_logger(logger_name=__name__).error("stage_failed", exc_info=error)


def stages_of(app: FastAPI) -> list[Stage]:
    """Return the stages of all pipelines that an app lists, outermost first."""
    stages: list[Stage] = []
    for factory, args, kwargs in app.user_middleware:
        if factory is Pipeline:
            stages += args[0] if args else kwargs["stages"]
    return stages


def require_stages(app: FastAPI, *classes: type[Stage]) -> None:
    """Raise `RuntimeError` if the app's pipeline lacks a stage of one of these classes, which a feature needs."""
    present = {type(stage) for stage in stages_of(app)}
    missing = [each.__name__ for each in classes if each not in present]
    if missing:
        wiring = "FastAPI(middleware=[Middleware(Pipeline, [...])])"
        raise RuntimeError(f"the app's pipeline lacks {', '.join(missing)}: add it to {wiring}")


def _overriding(stages: Sequence[Stage], method: str) -> list[tuple[int, Stage]]:
    default = getattr(Stage, method)
    return [
        (number, stage)
        for number, stage in enumerate(stages)
        if stage.active and getattr(type(stage), method) is not default
    ]
