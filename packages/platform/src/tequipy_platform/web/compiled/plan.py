"""The plan of a route: the calls of its dependencies in FastAPI's order, and where each argument comes from."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tequipy_platform.web.compiled.internals import Internals, NotSimple
from tequipy_platform.web.compiled.parameters import BodyReader, Reader, body_reader_of, readers_of

FAILED: Final = object()
"""The value of a dependency that was not called, because a parameter of it, or below it, is wrong."""


class Call:
    """One call of a dependency, or of the endpoint."""

    __slots__ = ("_body", "_function", "_inputs", "_is_async", "_readers", "_requests", "plain", "response")

    def __init__(
        self,
        dependant: Any,  # noqa: ANN401 -- a private type of FastAPI
        inputs: Sequence[tuple[str | None, int]],
        readers: Sequence[Reader],
        body: BodyReader | None,
        *,
        is_async: bool,
    ) -> None:
        self._function: Callable[..., Any] = dependant.call
        self._is_async = is_async
        self._inputs = tuple((name, place) for name, place in inputs if name is not None)
        self._requests = tuple(
            name for name in (dependant.http_connection_param_name, dependant.request_param_name) if name
        )
        self._readers = tuple(readers)
        self._body = body
        self.response: str | None = dependant.response_param_name
        self.plain = not readers and body is None and self.response is None
        """Whether all arguments are the request and the values of other dependencies."""

    def given(self, values: Sequence[Any], request: Request) -> dict[str, Any]:
        """Return the arguments that need no validation."""
        arguments: dict[str, Any] = {}
        for name, place in self._inputs:
            arguments[name] = values[place]
        for name in self._requests:
            arguments[name] = request
        return arguments

    async def arguments(self, evaluation: "Evaluation") -> dict[str, Any]:
        """Return all arguments; add the errors of those that are wrong."""
        request, body, errors = evaluation.request, evaluation.body, evaluation.errors
        arguments = self.given(evaluation.values, request)
        for read in self._readers:
            read(request, arguments, errors)
        if self._body is not None:
            pending = self._body(body, arguments, errors)
            if pending is not None:
                await pending
        if self.response is not None:
            arguments[self.response] = evaluation.response
        return arguments

    async def run(self, arguments: dict[str, Any]) -> Any:  # noqa: ANN401 -- of any type
        """Call the function, in a thread if it is synchronous."""
        if self._is_async:
            return await self._function(**arguments)
        return await run_in_threadpool(self._function, **arguments)


class Evaluation:
    """What is known of one request while its dependencies are called."""

    __slots__ = ("body", "errors", "request", "response", "values")

    def __init__(self, request: Request, body: Any) -> None:  # noqa: ANN401 -- JSON
        self.request = request
        self.body = body
        self.response: Response | None = None
        """The response whose status and header fields dependencies may set, if one takes it."""
        self.errors = list[Any]()
        self.values = list[Any]()
        """One for each step."""


class Step:
    """A dependency in the order of evaluation: a call whose value is kept, or the second use of such a value."""

    __slots__ = ("again", "call", "children", "first")

    def __init__(self, call: Call | None, children: tuple[int, ...], *, first: int, again: int = 0) -> None:
        self.call = call
        self.children = children
        """The places of all values it depends on, used or not."""
        self.first = first
        """The first step of what this one depends on: their errors are its errors."""
        self.again = again
        """Without a call, the place of the value that is used again; FastAPI then reports its errors again."""


class Plan:
    """All calls of one route. Raises `NotSimple` if they are not known ahead."""

    def __init__(self, dependant: Any, internals: Internals, *, embed: bool) -> None:  # noqa: ANN401 -- a private type of FastAPI
        self._internals = internals
        self._embed = embed
        self._places: dict[object, int] = {}
        self._steps: list[Step] = []
        self._endpoint, self._children = self._call_of(dependant)
        self._with_response = self._endpoint.response is not None or any(
            step.call is not None and step.call.response is not None for step in self._steps
        )

    async def arguments(self, evaluation: "Evaluation") -> dict[str, Any]:
        """Call all dependencies; return the endpoint's arguments, which are complete if there are no errors."""
        request, values, errors = evaluation.request, evaluation.values, evaluation.errors
        if self._with_response:
            evaluation.response = _empty_response()
        spans = list[tuple[int, int]]()  # of each step's errors
        for step in self._steps:
            call = step.call
            began = spans[step.first][0] if step.first < len(spans) else len(errors)
            if call is None:
                value = values[step.again]
                if value is FAILED:
                    begin, end = spans[step.again]
                    errors += errors[begin:end]
            elif call.plain and not errors:
                value = await call.run(call.given(values, request))
            else:
                value = await _value(call, step.children, evaluation)
            values.append(value)
            spans.append((began, len(errors)))
        return await self._endpoint.arguments(evaluation)

    async def run(self, arguments: dict[str, Any]) -> Any:  # noqa: ANN401 -- of any type
        """Call the endpoint."""
        return await self._endpoint.run(arguments)

    def _call_of(self, dependant: Any) -> tuple[Call, tuple[int, ...]]:  # noqa: ANN401 -- a private type of FastAPI
        """Add the steps of what a dependency depends on; return its own call and the places of their values."""
        internals = self._internals
        _check(dependant, internals)
        inputs = [(child.name, self._add(child)) for child in dependant.dependencies]
        readers = readers_of(dependant, internals)
        body = body_reader_of(dependant, internals, embed=self._embed)
        call = Call(dependant, inputs, readers, body, is_async=internals.is_async(dependant.call))
        return call, tuple(place for _, place in inputs)

    def _add(self, dependant: Any) -> int:  # noqa: ANN401 -- a private type of FastAPI
        """Add the steps of a dependency; return the place of its value."""
        key = self._internals.cache_key(dependant=dependant)
        first = len(self._steps)
        if dependant.use_cache and (place := self._places.get(key)) is not None:
            _check_again(dependant)
            if _reads(dependant):
                self._steps.append(Step(None, (), first=first, again=place))
                return len(self._steps) - 1
            return place
        call, children = self._call_of(dependant)
        self._steps.append(Step(call, children, first=first))
        place = len(self._steps) - 1
        self._places.setdefault(key, place)
        return place


async def _value(call: Call, children: tuple[int, ...], evaluation: Evaluation) -> Any:  # noqa: ANN401 -- of any type
    """Return the value of a dependency, or `FAILED`."""
    errors, values = evaluation.errors, evaluation.values
    before = len(errors)
    arguments = await call.arguments(evaluation)
    if len(errors) > before or any(values[place] is FAILED for place in children):
        return FAILED
    return await call.run(arguments)


def _empty_response() -> Response:
    """Return the response that FastAPI passes to dependencies: without a status, and without header fields."""
    response = Response()
    del response.headers["content-length"]
    response.status_code = None  # type: ignore[assignment]  # as in FastAPI
    return response


def _check(dependant: Any, internals: Internals) -> None:  # noqa: ANN401 -- a private type of FastAPI
    """Raise `NotSimple` for a dependency that needs more than a call."""
    if internals.is_generator(dependant.call) or internals.is_async_generator(dependant.call):
        raise NotSimple("a dependency with yield")
    if dependant.background_tasks_param_name:
        raise NotSimple("background tasks")
    if dependant.security_scopes_param_name:
        raise NotSimple("security scopes")
    if dependant.websocket_param_name:
        raise NotSimple("a WebSocket as parameter")
    if dependant.concurrency is not None:
        raise NotSimple("a dependency with a limit of concurrency")


def _check_again(dependant: Any) -> None:  # noqa: ANN401 -- a private type of FastAPI
    """Raise `NotSimple` if FastAPI does more than to report errors again when a dependency is used again."""
    for child in dependant.dependencies:
        if not child.use_cache:
            raise NotSimple("a dependency without cache below one that is used again")
        _check_again(child)
    if any(field.field_info.default_factory is not None for field in _fields(dependant)):
        raise NotSimple("a default factory in a dependency that is used again")


def _reads(dependant: Any) -> bool:  # noqa: ANN401 -- a private type of FastAPI
    return bool(_fields(dependant)) or any(map(_reads, dependant.dependencies))


def _fields(dependant: Any) -> list[Any]:  # noqa: ANN401 -- a private type of FastAPI
    return [
        *dependant.path_params,
        *dependant.query_params,
        *dependant.header_params,
        *dependant.cookie_params,
        *dependant.body_params,
    ]
