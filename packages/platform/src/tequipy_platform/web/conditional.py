"""Conditional requests (RFC 9110, section 13): entity tags, `If-None-Match` and `If-Match`."""

from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response, status
from pydantic import BaseModel

ANY_TAG: Final = frozenset({"*"})
"""The value of `If-Match: *`, which matches every representation."""


_ETAG: Final = {"ETag": {"description": "Identifies the state that is shown.", "schema": {"type": "string"}}}

TAGGED_RESPONSE: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "description": "The `ETag` of an earlier response: 304 if nothing has changed since.",
            "schema": {"type": "string"},
        }
    ],
    "responses": {
        "200": {"headers": _ETAG},
        "304": {"description": "Nothing has changed since the response with this `ETag`.", "headers": _ETAG},
    },
}
"""The `openapi_extra` of a route that returns `tagged_response`."""


def tagged_response(request: Request, body: BaseModel, tag: str) -> Response:
    """Return `body` with a strong entity tag, or 304 if `If-None-Match` names it.

    `tag` identifies the state that the body shows; it consists of characters that a quoted tag may have, such as
    hexadecimal ones. Shared caches may not store the response, and private ones have to ask each time.
    """
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if names_tag(request, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(body.model_dump_json().encode(), media_type="application/json", headers=headers)


def names_tag(request: Request, tag: str) -> bool:
    """Return whether `If-None-Match` names this tag, so that the client has the representation already."""
    known = _tags(request, "if-none-match")
    return known is not None and (known == ANY_TAG or tag in known)


def _if_match(
    request: Request,
    _documented: Annotated[
        str | None,
        Header(alias="If-Match", description="The `ETag` of the state to change: 412 if it has been changed since."),
    ] = None,
) -> AbstractSet[str] | None:
    return _tags(request, "if-match", weak=False)


IfMatch = Annotated[AbstractSet[str] | None, Depends(_if_match)]
"""The entity tags of `If-Match`, without quotes; None without the field, `ANY_TAG` for `*`.

The caller compares them where it changes the state, under the same lock, and raises `PreconditionFailed`.
"""


def _tags(request: Request, field: str, *, weak: bool = True) -> AbstractSet[str] | None:
    """Return the opaque tags of a field; weak ones only where the weak comparison applies (section 8.8.3.2)."""
    values = request.headers.getlist(field)
    if not values:
        return None
    found = set()
    # A tag may contain a comma, but none of ours does.
    for text in ",".join(values).split(","):
        tag = text.strip(" \t")
        if tag == "*":
            return ANY_TAG
        if tag.startswith("W/"):
            if not weak:
                continue
            tag = tag[2:]
        if len(tag) > 1 and tag[0] == tag[-1] == '"':
            found.add(tag[1:-1])
    return frozenset(found)
