"""The plan of a route: the calls of its dependencies in FastAPI's order, and where each argument comes from."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tequipy_platform.web.compiled.internals import Internals, NotSimple
from tequipy_platform.web.compiled.parameters import document_of, fields_of, readers_of

FAILED: Final = object()
"""The value of a dependency that was not called, because a parameter of it, or below it, is wrong."""
_BODY: Final = ("body",)


class Evaluation:
    """What is known of one request while its dependencies are called."""

    __slots__ = ("body", "errors", "request", "response", "values")

    def __init__(self, request: Request, body: Any) -> None:  # noqa: ANN401 -- JSON
        self.request = request
        self.body = body
        self.response: Response | None = None
        """The response whose status and header fields dependencies may set, if one takes it."""
        self.errors: list[Any] = []
        self.values: list[Any] = []
        """One for each step."""


class Call:
    """One call of a dependency, or of the endpoint, and the sources of its arguments."""

    __slots__ = ("_body", "_fields", "_function", "_inputs", "_is_async", "_readers", "_requests", "response")

    def __init__(
        self,
        dependant: Any,  # noqa: ANN401 -- a private type of FastAPI
        inputs: Sequence[tuple[str | None, int]],
        internals: Internals,
        *,
        embed: bool,
    ) -> None:
        self._function: Callable[..., Any] = dependant.call
        self._is_async = internals.is_async(dependant.call)
        self._inputs = tuple((name, place) for name, place in inputs if name is not None)
        requests = (dependant.http_connection_param_name, dependant.request_param_name)
        self._requests = tuple(name for name in requests if name)
        self._readers = readers_of(dependant, internals)
        self._body = document_of(dependant, internals, embed=embed)
        self._fields = fields_of(dependant, internals, embed=embed)
        self.response: str | None = dependant.response_param_name

    def arguments(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the arguments; add the errors of those that are wrong. `fields` has those that this one lacks."""
        values, errors, request = evaluation.values, evaluation.errors, evaluation.request
        arguments: dict[str, Any] = {}
        for name, place in self._inputs:
            arguments[name] = values[place]
        for read in self._readers:
            read(request, arguments, errors)
        if self._body is not None:
            self._body.add(evaluation.body, _BODY, arguments, errors)
        for name in self._requests:
            arguments[name] = request
        if self.response is not None:
            arguments[self.response] = evaluation.response
        return arguments

    @property
    def has_fields(self) -> bool:
        """Whether the body is an object of several parameters."""
        return self._fields is not None

    async def fields(self, evaluation: Evaluation, arguments: dict[str, Any]) -> None:
        """Add the arguments that are fields of the body, or their errors."""
        assert self._fields is not None  # noqa: S101 -- the caller has asked
        values, errors = await self._fields(evaluation.body)
        arguments.update(values)
        evaluation.errors += errors

    def run(self, arguments: dict[str, Any]) -> Awaitable[Any]:
        """Call a dependency, in a thread if it is synchronous; as in FastAPI, that fails for an argument `func`."""
        if self._is_async:
            return self._function(**arguments)  # type: ignore[no-any-return]  # -- a coroutine function
        return run_in_threadpool(self._function, **arguments)

    def run_endpoint(self, arguments: dict[str, Any]) -> Awaitable[Any]:
        """Call the endpoint, in a thread if it is synchronous, with arguments of any name."""
        if self._is_async:
            return self._function(**arguments)  # type: ignore[no-any-return]  # -- a coroutine function
        return run_in_threadpool(partial(self._function, **arguments))


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
        self.endpoint, _ = self._call_of(dependant)
        calls = [self.endpoint, *(step.call for step in self._steps if step.call is not None)]
        self._with_response = any(call.response is not None for call in calls)

    async def arguments(self, evaluation: Evaluation) -> dict[str, Any]:
        """Call all dependencies; return the endpoint's arguments, which are complete if there are no errors."""
        values, errors, steps = evaluation.values, evaluation.errors, self._steps
        if self._with_response:
            evaluation.response = _empty_response()
        counts = [0]  # of the errors before each step
        for step in steps:
            call = step.call
            if call is None:
                value = values[step.again]
                if value is FAILED:
                    errors += errors[counts[steps[step.again].first] : counts[step.again + 1]]
            else:
                arguments = call.arguments(evaluation)
                if call.has_fields:
                    await call.fields(evaluation, arguments)
                failed = errors and (
                    len(errors) > counts[-1] or any(values[place] is FAILED for place in step.children)
                )
                value = FAILED if failed else await call.run(arguments)
            values.append(value)
            counts.append(len(errors))
        arguments = self.endpoint.arguments(evaluation)
        if self.endpoint.has_fields:
            await self.endpoint.fields(evaluation, arguments)
        return arguments

    def _call_of(self, dependant: Any) -> tuple[Call, tuple[int, ...]]:  # noqa: ANN401 -- a private type of FastAPI
        """Add the steps of what a dependency depends on; return its own call and the places of their values."""
        internals = self._internals
        _check(dependant, internals)
        inputs = [(child.name, self._add(child)) for child in dependant.dependencies]
        call = Call(dependant, inputs, internals, embed=self._embed)
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
