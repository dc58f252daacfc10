"""How a compiled route reads parameters of path, query, header fields and cookies, and the body."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from starlette.requests import Request

from tequipy_platform.web.compiled.internals import Internals, NotSimple, validator_of

Reader = Callable[[Request, dict[str, Any], list[Any]], None]
"""Adds the arguments that it reads, or else errors."""
FieldsReader = Callable[[Any], Awaitable[tuple[dict[str, Any], list[Any]]]]
"""Returns the arguments that it takes from a body, and errors."""

_IMMUTABLE: Final = (str, int, float, bool, bytes, type(None))


class Value:
    """Validates the value of one parameter; fills in its default."""

    __slots__ = ("_default", "_field", "_locate", "_missing", "_validate", "name")

    def __init__(self, field: Any, internals: Internals) -> None:  # noqa: ANN401 -- a private type of FastAPI
        self.name: str = field.name
        self._field = field
        self._validate = validator_of(field)
        self._locate = internals.locate_errors
        self._missing = internals.missing_error
        self._default = PydanticUndefined
        info = field.field_info
        if not info.is_required() and info.default_factory is None and not info.validate_default:
            default = field.default
            if type(default) in _IMMUTABLE:  # others are copied for each request
                self._default = default

    def add(self, value: Any, loc: tuple[str, ...], arguments: dict[str, Any], errors: list[Any]) -> None:  # noqa: ANN401 -- from a request
        """Validate a value, undefined if the request has none."""
        if value is PydanticUndefined:
            if self._default is not PydanticUndefined:
                arguments[self.name] = self._default
                return
            info = self._field.field_info
            if info.is_required():
                errors.append(self._missing(loc=loc))
                return
            value = deepcopy(self._field.default)
            if not info.validate_default:
                arguments[self.name] = value
                return
        try:
            arguments[self.name] = self._validate(value, from_attributes=True)
        except ValidationError as error:
            errors += self._locate(errors=error.errors(include_url=False), loc_prefix=loc)


def readers_of(dependant: Any, internals: Internals) -> tuple[Reader, ...]:  # noqa: ANN401 -- a private type of FastAPI
    """Return what reads the parameters of a dependency, in FastAPI's order."""
    sources = (
        (dependant.path_params, _path_reader, _path),
        (dependant.query_params, _query_reader, _query),
        (dependant.header_params, _header_reader, _headers),
        (dependant.cookie_params, None, _cookies),
    )
    readers = list[Reader]()
    for fields, compiled, received in sources:
        if not fields:
            continue
        simple = compiled is not None and all(_is_single(field, internals) for field in fields)
        if simple and compiled is not None:
            readers.extend(compiled(field, internals) for field in fields)
        else:
            readers.append(_fastapi_reader(fields, received, internals))
    return tuple(readers)


def document_of(dependant: Any, internals: Internals, *, embed: bool) -> Value | None:  # noqa: ANN401 -- a private type of FastAPI
    """Return the parameter that takes the whole body, if there is one."""
    fields = dependant.body_params
    return Value(fields[0], internals) if fields and not _is_object(fields, internals, embed=embed) else None


def fields_of(dependant: Any, internals: Internals, *, embed: bool) -> FieldsReader | None:  # noqa: ANN401 -- a private type of FastAPI
    """Return the function that takes arguments from the fields of the body, if there are such parameters."""
    fields = dependant.body_params
    if not fields or not _is_object(fields, internals, embed=embed):
        return None
    return partial(internals.body_to_arguments, fields, embed_body_fields=embed)


def _is_object(fields: list[Any], internals: Internals, *, embed: bool) -> bool:
    return len(fields) > 1 or embed or internals.should_embed(fields)


def _is_single(field: Any, internals: Internals) -> bool:  # noqa: ANN401 -- a private type of FastAPI
    """Tell whether a parameter is one text, not a list and not a model of several parameters."""
    return internals.parameter_model(field) is None and not internals.is_sequence(field.field_info.annotation)


def _locations(field: Any, internals: Internals) -> list[tuple[str, tuple[str, str]]]:  # noqa: ANN401 -- a private type of FastAPI
    """Return the names under which a request can send a parameter, and the location of errors under each."""
    source = field.field_info.in_.value
    return [(name, (source, name)) for _, name in internals.parameter_aliases(field)]


def _path_reader(field: Any, internals: Internals) -> Reader:  # noqa: ANN401 -- a private type of FastAPI
    value, locations = Value(field, internals), _locations(field, internals)

    def read(request: Request, arguments: dict[str, Any], errors: list[Any]) -> None:
        _read_from(request.path_params, value, locations, arguments, errors)

    return read


def _query_reader(field: Any, internals: Internals) -> Reader:  # noqa: ANN401 -- a private type of FastAPI
    value, locations = Value(field, internals), _locations(field, internals)
    first = locations[0][1]

    def read(request: Request, arguments: dict[str, Any], errors: list[Any]) -> None:
        if request.scope.get("query_string"):
            _read_from(request.query_params, value, locations, arguments, errors)
        else:
            value.add(PydanticUndefined, first, arguments, errors)

    return read


def _read_from(
    received: Mapping[str, Any],
    value: Value,
    locations: Sequence[tuple[str, tuple[str, str]]],
    arguments: dict[str, Any],
    errors: list[Any],
) -> None:
    for name, loc in locations:
        if name in received:
            found = received[name]
            value.add(PydanticUndefined if found is None else found, loc, arguments, errors)
            return
    value.add(PydanticUndefined, locations[0][1], arguments, errors)


def _header_reader(field: Any, internals: Internals) -> Reader:  # noqa: ANN401 -- a private type of FastAPI
    value = Value(field, internals)
    try:
        names = [(name.lower().encode("latin-1"), loc) for name, loc in _locations(field, internals)]
    except UnicodeEncodeError:
        raise NotSimple("a header field whose name is not Latin-1") from None
    first = names[0][1]

    def read(request: Request, arguments: dict[str, Any], errors: list[Any]) -> None:
        received = request.scope["headers"]
        if type(received) is not list:  # any iterable (ASGI); Starlette keeps it as a list in the scope
            received = request.headers.raw
        for name, loc in names:
            for key, content in received:
                if key == name:
                    value.add(content.decode("latin-1"), loc, arguments, errors)
                    return
        value.add(PydanticUndefined, first, arguments, errors)

    return read


def _fastapi_reader(fields: list[Any], received: Callable[[Request], Any], internals: Internals) -> Reader:
    def read(request: Request, arguments: dict[str, Any], errors: list[Any]) -> None:
        values, faults = internals.parameters_to_arguments(fields, received(request))
        arguments.update(values)
        errors += faults

    return read


def _path(request: Request) -> object:
    return request.path_params


def _query(request: Request) -> object:
    return request.query_params


def _headers(request: Request) -> object:
    return request.headers


def _cookies(request: Request) -> object:
    return request.cookies
