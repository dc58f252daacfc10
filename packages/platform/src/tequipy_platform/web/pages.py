"""Pages over HTTP: the parameters `limit` and `cursor`, and the body `{"items": [...], "next_cursor": ...}`."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Final, Generic, Self, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from tequipy_platform._errors import Invalid
from tequipy_platform._pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageRequest

T = TypeVar("T")
R = TypeVar("R")

_CURSOR_LENGTH: Final = 22
"""The length of 16 bytes in base64url without padding (RFC 4648, section 5)."""


class PageBody(BaseModel, Generic[T]):
    """A page; send `next_cursor` as `cursor` for the next one, which is missing on the last page.

    A subclass, such as `class UserPage(PageBody[UserItem])`, names the schema in OpenAPI.
    """

    items: list[T]
    next_cursor: str | None = Field(examples=["AZSKXnxAezqfDj0sGwqfjg"])

    @classmethod
    def of(cls, page: Page[R], convert: Callable[[R], T]) -> Self:
        """Return the body of a page, whose items `convert` turns into their own bodies."""
        cursor = None if page.next_after is None else _encode(page.next_after)
        return cls(items=[convert(item) for item in page.items], next_cursor=cursor)


def _page_request(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="The number of items of a page.")] = (
        DEFAULT_PAGE_SIZE
    ),
    cursor: Annotated[
        str | None,
        Query(max_length=_CURSOR_LENGTH, description="The `next_cursor` of the previous page; none for the first."),
    ] = None,
) -> PageRequest:
    return PageRequest(limit, None if cursor is None else _decode(cursor))


PageParameters = Annotated[PageRequest, Depends(_page_request)]
"""The page that the caller asks for: 422 for a limit outside of 1 to 200, and for a cursor that no page returned."""


def _encode(position: UUID) -> str:
    return urlsafe_b64encode(position.bytes).rstrip(b"=").decode()


def _decode(cursor: str) -> UUID:
    try:
        position = UUID(bytes=urlsafe_b64decode(f"{cursor}=="))
        if _encode(position) == cursor:
            return position
    except (ValueError, binascii.Error):
        pass
    detail = "The cursor was not returned by an earlier page."
    raise Invalid(errors=[{"pointer": "/cursor", "code": "invalid_cursor", "detail": detail}])
