"""A compiled route: reads the request, calls dependencies and endpoint, and answers."""

import email.message
import json
from collections.abc import Callable
from re import Pattern
from typing import Any, Final

from fastapi.exceptions import RequestValidationError, ResponseValidationError
from pydantic import ValidationError
from pydantic_core import PydanticUndefined
from starlette.concurrency import run_in_threadpool
from starlette.convertors import FloatConvertor, PathConvertor, StringConvertor, UUIDConvertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tequipy_platform.web.compiled.internals import (
    Internals,
    NotSimple,
    handler_settings,
    included_context,
    is_placeholder,
    read_body,
    read_json,
    serializer_of,
    validator_of,
)
from tequipy_platform.web.compiled.plan import Evaluation, Plan

SAFE_CONVERTORS: Final = (StringConvertor, PathConvertor, FloatConvertor, UUIDConvertor)
"""Convertors that convert whatever their pattern matches, without an error."""

_NOT_STATED: Final = (None, False)
_JSON: Final = "application/json"


class CompiledRoute:
    """One route of an app. Raises `NotSimple` if only FastAPI knows how to serve it."""

    def __init__(self, context: Any, app: object, internals: Internals) -> None:  # noqa: ANN401 -- a private type of FastAPI
        settings = handler_settings(context)
        _check_simple(settings, app)
        self.methods: frozenset[str] = frozenset(context.methods)
        self.original = context.original_route
        self.context = included_context(context)
        self.endpoint = context.endpoint
        self.pattern: Pattern[str] | None = context.path_regex if context.param_convertors else None
        self._convert = [
            (name, convertor.convert)
            for name, convertor in context.param_convertors.items()
            if type(convertor) not in (StringConvertor, PathConvertor)
        ]
        dependant = settings["dependant"]
        self._call = dependant.call
        self._path = dependant.path
        self._internals = internals
        self._status: int | None = settings["status_code"]
        self._is_async: bool = settings["is_coroutine"]
        self._has_body = settings["body_field"] is not None
        self._strict: bool = settings["actual_strict_content_type"]
        self._plan = Plan(dependant, internals, embed=settings["embed_body_fields"])
        self._read_answer(settings)

    def _read_answer(self, settings: Any) -> None:  # noqa: ANN401 -- FastAPI's settings
        self._field = settings["response_field"]
        # The status allows a body, because FastAPI refuses a response model for one that does not.
        self.status = self._status or 200
        self.start_fields = Response(b"", self.status, media_type=_JSON).raw_headers[1:]  # without the length
        if self._field is None:
            return
        self._validate: Callable[..., Any] = validator_of(self._field)
        self._serialize: Callable[..., bytes] = serializer_of(self._field)
        options = {
            name: settings[f"response_model_{name}"]
            for name in ("include", "exclude", "exclude_unset", "exclude_defaults", "exclude_none")
        }
        self._options = {name: value for name, value in options.items() if value not in _NOT_STATED}
        self._options["by_alias"] = settings["response_model_by_alias"]

    def parameters(self, pattern: Pattern[str], path: str) -> dict[str, Any]:
        """Return the path parameters of a path that the route matches; raise what a convertor raises."""
        match = pattern.match(path)
        assert match is not None  # noqa: S101 -- the caller has found the route by its pattern
        parameters: dict[str, Any] = match.groupdict()
        for name, convert in self._convert:
            parameters[name] = convert(parameters[name])
        return parameters

    async def answer(self, request: Request) -> bytes | Response:
        """Return the answer; only its document if it has the route's own status and no other header fields."""
        body = await self._read_body(request) if self._has_body else PydanticUndefined
        evaluation = Evaluation(request, body)
        arguments = await self._plan.arguments(evaluation)
        if evaluation.errors:
            received = None if body is PydanticUndefined else body
            raise RequestValidationError(evaluation.errors, body=received, endpoint_ctx=self._describe(request))
        response = evaluation.response
        result = await self._plan.endpoint.run_endpoint(arguments)
        if isinstance(result, Response):
            return result
        if self._field is None:
            content = self._internals.encode_untyped(result)
            return self._complete(JSONResponse(content, self._status_of(response)), response)
        document = await self._document(result, request)
        if response is None:
            return document
        return self._complete(Response(document, self._status_of(response), media_type=_JSON), response)

    def _status_of(self, response: Response | None) -> int:
        return (response.status_code if response is not None else None) or self.status

    def _complete(self, answer: Response, response: Response | None) -> Response:
        """Return the answer with what dependencies set on the response that they were given."""
        if not self._internals.body_allowed(answer.status_code):
            answer.body = b""
        if response is not None:
            answer.raw_headers.extend(response.raw_headers)
        return answer

    async def _document(self, result: Any, request: Request) -> bytes:  # noqa: ANN401 -- what the endpoint returned
        try:
            if self._is_async:
                value = self._validate(result, from_attributes=True)
            else:
                value = await run_in_threadpool(self._validate, result, from_attributes=True)
        except ValidationError as error:
            errors = self._internals.locate_errors(errors=error.errors(include_url=False), loc_prefix=("response",))
            raise ResponseValidationError(errors=errors, body=result, endpoint_ctx=self._describe(request)) from None
        return self._serialize(value, **self._options)

    async def _read_body(self, request: Request) -> Any:  # noqa: ANN401 -- JSON
        """Return the body as JSON, or as bytes if its type is another; undefined if there is none."""
        try:
            body = await read_body(request)
            if not body:
                return PydanticUndefined
            content_type = request.headers.get("content-type")
            if content_type == _JSON or (_is_json(content_type) if content_type else not self._strict):
                return read_json(request, body)
        except json.JSONDecodeError as error:
            fault = {
                "type": "json_invalid",
                "loc": ("body", error.pos),
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": error.msg},
            }
            raise RequestValidationError([fault], body=error.doc, endpoint_ctx=self._describe(request)) from error
        except HTTPException:
            raise
        except Exception as error:
            raise HTTPException(400, "There was an error parsing the body") from error
        return body

    def _describe(self, request: Request) -> Any:  # noqa: ANN401 -- FastAPI's type
        """Return what FastAPI's errors tell about the endpoint."""
        context = self._internals.endpoint_context(self._call)
        if self._path:
            mounted = request.scope.get("root_path", "").rstrip("/")
            context["path"] = f"{request.method} {mounted}{self._path}"
        return context


def _is_json(content_type: str) -> bool:
    message = email.message.Message()
    message["content-type"] = content_type
    if message.get_content_maintype() != "application":
        return False
    subtype = message.get_content_subtype()
    return subtype == "json" or subtype.endswith("+json")


def _check_simple(settings: Any, app: object) -> None:  # noqa: ANN401 -- FastAPI's settings
    """Raise `NotSimple` for what only FastAPI knows how to do."""
    if settings["is_sse_stream"] or settings["is_json_stream"] or settings["stream_item_field"] is not None:
        raise NotSimple("a stream")
    if settings["is_body_form"]:
        raise NotSimple("a form")
    if not is_placeholder(settings["response_class"]):
        raise NotSimple("a response class of its own")
    if settings["response_field"] is None and settings["actual_response_class"] is not JSONResponse:
        raise NotSimple("a response class of its own")
    if settings["dependency_overrides_provider"] not in (app, None):
        raise NotSimple("dependency overrides of another app")
