"""Downloads of stored objects: entity tags and ranges (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from fastapi import Request, Response, status
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tequipy_platform._storage import ObjectStorage, StoredObject, content_disposition
from tequipy_platform.web.conditional import names_tag
from tequipy_platform.web.problem_schemas import problem_responses
from tequipy_platform.web.problems import RangeNotSatisfiable, problem_response

_RANGE: Final = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
"""A single range; several in one field, which clients rarely send, are ignored, as section 14.2 permits."""

_NAME: Final = {
    "Content-Disposition": {"description": "The name of the file (RFC 6266).", "schema": {"type": "string"}}
}
_TAG: Final = {"ETag": {"description": "The SHA-256 of the whole object.", "schema": {"type": "string"}}}
_PART: Final = {"Content-Range": {"description": "The bytes that are sent.", "schema": {"type": "string"}}}
_SIZE: Final = {"Content-Range": {"description": "The number of bytes, as `bytes */86`.", "schema": {"type": "string"}}}


def _header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


OBJECT_REQUEST: Final[dict[str, Any]] = {
    "parameters": [
        _header("Range", "One range of bytes to send instead of the whole object, such as `bytes=1000-`."),
        _header("If-Range", "The `ETag` that `Range` is about: the whole object is sent if it has another one."),
        _header("If-None-Match", "The `ETag` of an earlier response: 304 if the object has it."),
    ],
}
"""The `openapi_extra` of a route that returns an `object_response`."""


async def object_response(
    request: Request, storage: ObjectStorage, stored: StoredObject, *, filename: str, media_type: str
) -> Response:
    """Return a response that streams an object as a download named `filename`; `stored` needs its SHA-256.

    The strong entity tag is the SHA-256. `If-None-Match` is answered with 304, one range with 206, and a range beyond
    the end with 416. `If-Range` names the tag: with another one, or a date, the whole object is sent. Raises
    `ObjectNotFound` and `Unavailable` before the response begins. If the store fails later, the connection is closed
    before the promised length.
    """
    tag = f'"{stored.sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if names_tag(request, str(stored.sha256)):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    start, stop = 0, stored.size
    wanted = _requested_range(request, stored.size, tag)
    if wanted is not None:
        start, stop = wanted.start, wanted.stop
        if not wanted:
            return problem_response(RangeNotSatisfiable(), headers={"Content-Range": f"bytes */{stored.size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
    headers["Content-Length"] = str(stop - start)
    headers["Content-Disposition"] = content_disposition(filename)
    content = _content(storage, stored, start, stop)
    first = await anext(content, b"")  # fails before the status is sent
    return _Download(
        _chunks(first, content),
        status_code=status.HTTP_200_OK if wanted is None else status.HTTP_206_PARTIAL_CONTENT,
        headers=headers,
        media_type=media_type,
    )


def object_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route that returns an `object_response` adds to its `responses=`."""
    refusals = problem_responses(RangeNotSatisfiable)
    refusals[status.HTTP_416_RANGE_NOT_SATISFIABLE]["headers"] = _SIZE
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {
        status.HTTP_200_OK: {"description": "The whole object.", "content": content, "headers": _TAG | _NAME},
        status.HTTP_206_PARTIAL_CONTENT: {
            "description": "The range that `Range` asks for.",
            "content": content,
            "headers": _TAG | _NAME | _PART,
        },
        status.HTTP_304_NOT_MODIFIED: {"description": "`If-None-Match` names the present entity tag.", "headers": _TAG},
        **refusals,
    }


class _Download(StreamingResponse):
    """A streamed response that closes its source also when the client has disconnected."""

    def __init__(
        self, chunks: AsyncGenerator[bytes], *, status_code: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(chunks, status_code=status_code, headers=headers, media_type=media_type)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await super().__call__(scope, receive, send)


async def _content(storage: ObjectStorage, stored: StoredObject, start: int, stop: int) -> AsyncGenerator[bytes]:
    """Yield the bytes from `start` to before `stop`; closing the generator closes the stream of the store."""
    if start == stop:  # an empty object, of which a store has no range
        await storage.head(stored.key)
        return
    stream: AsyncIterator[bytes] = storage.get(stored.key, start=start, stop=stop)
    try:
        async for chunk in stream:
            yield chunk
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _chunks(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def _requested_range(request: Request, size: int, tag: str) -> range | None:
    """Return the requested positions: None for the whole object, an empty range if it is beyond the end."""
    fields = request.headers.getlist("range")
    if len(fields) != 1 or request.headers.get("if-range", tag) != tag:
        return None
    match = _RANGE.fullmatch(fields[0])
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
