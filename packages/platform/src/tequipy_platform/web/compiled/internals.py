"""The only module that reads FastAPI's and Starlette's internals, for the versions that it has been tested with."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, Final

import fastapi
from fastapi import APIRouter, FastAPI
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute
from pydantic_core import SchemaSerializer, SchemaValidator
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive

SUPPORTED: Final = ((0, 165), (0, 166))
"""FastAPI's versions: from the first, without the second; extend it after the equality test has passed with it."""

# The name here → the module that defines it, and its name there.
_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "cache_key": ("fastapi.dependencies.models", "_get_cache_key"),
    "is_async": ("fastapi.dependencies.models", "_is_coroutine_callable"),
    "is_generator": ("fastapi.dependencies.models", "_is_gen_callable"),
    "is_async_generator": ("fastapi.dependencies.models", "_is_async_gen_callable"),
    "parameters_to_arguments": ("fastapi.dependencies.utils", "request_params_to_args"),
    "body_to_arguments": ("fastapi.dependencies.utils", "request_body_to_args"),
    "parameter_aliases": ("fastapi.dependencies.utils", "_get_param_aliases"),
    "parameter_model": ("fastapi.dependencies.utils", "_get_param_model"),
    "should_embed": ("fastapi.dependencies.utils", "_should_embed_body_fields"),
    "form_models": ("fastapi.dependencies.utils", "_get_form_models"),
    "is_sequence": ("fastapi._compat.shared", "field_annotation_is_sequence"),
    "missing_error": ("fastapi._compat.v2", "get_missing_field_error"),
    "locate_errors": ("fastapi._compat.v2", "_regenerate_error_with_loc"),
    "endpoint_context": ("fastapi.routing", "_extract_endpoint_context"),
    "encode_untyped": ("fastapi.encoders", "jsonable_encoder"),
    "body_allowed": ("fastapi.utils", "is_body_allowed_for_status_code"),
    "handle_exceptions": ("starlette._exception_handler", "wrap_app_handling_exceptions"),
}
# What a request passes through in FastAPI. Another library may replace one of these to observe or to change requests.
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "fastapi.routing": (
        "APIRoute.handle",
        "APIRoute.matches",
        "APIRouter.app",
        "APIRouter.handle",
        "APIRouter.matches",
        "get_request_handler",
        "request_response",
        "run_endpoint_function",
        "serialize_response",
        "solve_dependencies",
    ),
    "fastapi.dependencies.utils": ("request_body_to_args", "request_params_to_args", "solve_dependencies"),
    "fastapi._compat.v2": ("ModelField.serialize_json", "ModelField.validate"),
    "fastapi.middleware.asyncexitstack": ("AsyncExitStackMiddleware.__call__",),
    "starlette.middleware.exceptions": ("ExceptionMiddleware.__call__", "wrap_app_handling_exceptions"),
    "starlette.requests": ("Request.body", "Request.json", "Request.stream"),
    "starlette.responses": ("Response.__call__", "Response.__init__"),
}
_ROUTER_METHODS: Final = ("__call__", "app", "handle", "matches")
_ROUTE_METHODS: Final = ("__call__", "handle", "matches")
# The variables of FastAPI's handler of a route; these, and not the attributes of the route, decide what it does.
_SETTINGS: Final = frozenset(
    {
        "actual_response_class",
        "actual_strict_content_type",
        "body_field",
        "dependant",
        "dependency_overrides_provider",
        "embed_body_fields",
        "is_body_form",
        "is_coroutine",
        "is_json_stream",
        "is_sse_stream",
        "response_class",
        "response_field",
        "response_model_by_alias",
        "response_model_exclude",
        "response_model_exclude_defaults",
        "response_model_exclude_none",
        "response_model_exclude_unset",
        "response_model_include",
        "status_code",
        "stream_item_field",
    }
)
TELEMETRY_KEY: Final = "fastapi.telemetry"
"""In the scope of a request that FastAPI's own telemetry observes."""
BODY_LIMIT_KEY: Final = "starlette.max_body_size"
"""In the scope of a request whose body Starlette limits."""
_CONTEXT_KEY: Final = "effective_route_context"


class NotSimple(Exception):
    """A route, or all routes of an app, are left to FastAPI; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Internals:
    """Functions of FastAPI and Starlette, by the names that this package uses."""

    cache_key: Callable[..., object]
    is_async: Callable[[object], bool]
    is_generator: Callable[[object], bool]
    is_async_generator: Callable[[object], bool]
    parameters_to_arguments: Callable[..., tuple[dict[str, Any], list[Any]]]
    body_to_arguments: Callable[..., Any]
    parameter_aliases: Callable[[Any], list[tuple[str, str]]]
    parameter_model: Callable[[Any], object]
    should_embed: Callable[[list[Any]], bool]
    form_models: Callable[[Any], list[Any]]
    is_sequence: Callable[[object], bool]
    missing_error: Callable[..., Any]
    locate_errors: Callable[..., list[Any]]
    endpoint_context: Callable[[object], Any]
    encode_untyped: Callable[[object], object]
    body_allowed: Callable[[int | None], bool]
    handle_exceptions: Callable[..., ASGIApp]


def internals_for(app: FastAPI, inner: ASGIApp | None = None) -> Internals:
    """Return what compiled routes need of FastAPI; raise `NotSimple` if this version is not known, or was changed.

    `inner`, if given, is the app within `CompiledRoutes`, which the compiled routes replace.
    """
    if inner is not None and type(inner) is not ExceptionMiddleware:
        raise NotSimple("CompiledRoutes is not the last middleware in the list")
    _check_version()
    _check_router(app)
    return Internals(**{ours: _look_up(*theirs) for ours, theirs in _NAMES.items()})


def _check_version() -> None:
    if "_receive" not in vars(Request({"type": "http"})):
        raise NotSimple("starlette.requests.Request has no _receive")
    version = tuple(int(part) for part in fastapi.__version__.split(".")[:2])
    if not SUPPORTED[0] <= version < SUPPORTED[1]:
        raise NotSimple(f"FastAPI {fastapi.__version__} is not one of the versions that routes are compiled for")
    for module, names in _OWN.items():
        for name in names:
            if not _source(_look_up(module, name)).startswith(("fastapi.", "starlette.")):
                raise NotSimple(f"{module}.{name} has been replaced")


def _check_router(app: FastAPI) -> None:
    """Raise `NotSimple` if a router of the app does not match or serve requests as FastAPI's routers do."""
    if app.router.middleware_stack != app.router.app:
        raise NotSimple("the app's router has middleware")
    for router in _routers(app.router, set()):
        if any(
            getattr(type(router), name) is not getattr(APIRouter, name) or name in vars(router)
            for name in _ROUTER_METHODS
        ):
            raise NotSimple(f"{type(router).__qualname__} routes in its own way")


def handler_settings(context: Any) -> Mapping[str, Any]:  # noqa: ANN401 -- a private type of FastAPI
    """Return what FastAPI's handler of a route was built with; raise `NotSimple` for a handler of another kind."""
    route = context.original_route
    if type(route) is not APIRoute:
        raise NotSimple("not a FastAPI route" if not isinstance(route, APIRoute) else "a route class of its own")
    if any(name in vars(route) for name in _ROUTE_METHODS):
        raise NotSimple("a route with a method of its own")
    app = context.app
    handler = _variables(app, "request_response.<locals>.app").get("f")
    settings = _variables(handler, "get_request_handler.<locals>.app")
    if missing := _SETTINGS - settings.keys():
        raise NotSimple(f"FastAPI's handler has no {', '.join(sorted(missing))}")
    return settings


def validator_of(field: Any) -> Callable[..., Any]:  # noqa: ANN401 -- a private type of FastAPI
    """Return the function by which a field validates, which raises pydantic's `ValidationError`."""
    adapter = field._type_adapter  # noqa: SLF001 -- this module is the adapter
    if type(adapter.validator) is SchemaValidator:
        function: Callable[..., Any] = adapter.validator.validate_python
    else:  # a schema that is built at its first use, or is observed by a plugin
        function = adapter.validate_python
    return function


def serializer_of(field: Any) -> Callable[..., bytes]:  # noqa: ANN401 -- a private type of FastAPI
    """Return the function by which a field becomes JSON."""
    adapter = field._type_adapter  # noqa: SLF001 -- this module is the adapter
    function: Callable[..., bytes] = (
        adapter.serializer.to_json if type(adapter.serializer) is SchemaSerializer else adapter.dump_json
    )
    return function


async def read_body(request: Request) -> bytes:
    """Return the body as `Request.body` does; without its generators if the body has arrived in one piece."""
    message = await request.receive()
    if message["type"] != "http.request" or message.get("more_body", False):
        request._receive = _resume(message, request.receive)  # noqa: SLF001 -- this module is the adapter
        body = await request.body()
    else:
        body = request._body = bytes(message.get("body") or b"")  # noqa: SLF001 -- as above
    return body


def read_json(request: Request, body: bytes) -> Any:  # noqa: ANN401 -- JSON
    """Return the body as `Request.json` does, and keep it there."""
    document = request._json = json.loads(body)  # noqa: SLF001 -- this module is the adapter
    return document


def _resume(first: Message, receive: Receive) -> Receive:
    """Return a function that returns a message that has been received, and then what follows."""
    received = [first]

    async def receive_again() -> Message:
        return received.pop() if received else await receive()

    return receive_again


def remember_context(scope: Any, context: Any) -> None:  # noqa: ANN401 -- a private type of FastAPI
    """Keep the included route in the scope, where FastAPI keeps it."""
    scope.setdefault("fastapi", {})[_CONTEXT_KEY] = context


def included_context(context: Any) -> object:  # noqa: ANN401 -- a private type of FastAPI
    """Return what FastAPI keeps in the scope for a route of an included router, and None for a route of the app."""
    return context._route_context  # noqa: SLF001 -- this module is the adapter


def is_placeholder(setting: object) -> bool:
    """Tell whether a setting was left at its default."""
    return isinstance(setting, DefaultPlaceholder)


def _look_up(module: str, name: str) -> Any:  # noqa: ANN401 -- of any type
    try:
        return attrgetter(name)(import_module(module))
    except (ImportError, AttributeError):
        raise NotSimple(f"{module}.{name} is missing") from None


def _source(function: Any) -> str:  # noqa: ANN401 -- of any type
    """Return the module with a function's code, which a decorator cannot pretend to be, unlike `__module__`."""
    return str(getattr(function, "__globals__", {}).get("__name__"))


def _variables(function: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 -- of any type
    """Return the variables that a function of FastAPI's routing module takes from the function around it."""
    if _source(function) != "fastapi.routing" or function.__code__.co_qualname != name:
        raise NotSimple("a wrapper around the handler, such as a body limit of its own")
    return dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__), strict=True))


def _routers(router: Any, seen: set[int]) -> Iterator[Any]:  # noqa: ANN401 -- routers of any class
    if id(router) in seen:
        return
    seen.add(id(router))
    yield router
    for route in router.routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from _routers(included, seen)
