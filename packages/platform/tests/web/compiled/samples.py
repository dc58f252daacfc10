"""Types, values and options from which routes and requests are generated."""

from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    name: str
    price: float = Field(1.5, alias="thePrice")
    tags: list[str] = []
    day: date | None = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: Annotated[int, Field(ge=0)]
    item: Item | None = None


class Deferred(BaseModel):
    """A model whose schema is built when it is first needed."""

    model_config = ConfigDict(defer_build=True)
    number: int


class Filters(BaseModel):
    limit: int = 10
    order_by: Literal["name", "price"] = "name"
    tags: list[str] = []


class KnownError(Exception):
    """An error with a handler."""


class UnknownError(Exception):
    """An error without a handler."""


SCALARS: list[Any] = [
    int, str, float, bool, UUID, date, Colour, int | None, str | None, int | str, Literal["a", "b"], Any,
    Annotated[int, Field(ge=1, le=9)], Annotated[str, Field(min_length=2)],
]  # fmt: skip
LISTS: list[Any] = [list[int], list[str], list[str] | None, set[int], tuple[int, ...]]
BODIES: list[Any] = [
    Item,
    Strict,
    Item | Strict,
    dict[str, int],
    list[Item],
    int,
    Any,
    Item | None,
    list[int],
    Deferred,
]
ANSWERS: list[Any] = [
    None,
    Item,
    Strict,
    Item | Strict,
    list[Item],
    dict[str, int],
    int,
    str,
    Any,
    Item | None,
    float,
    Deferred,
]
REQUIRED = object()
DEFAULTS: list[Any] = [REQUIRED, REQUIRED, None, 3, "red", "x", [1]]
NAMES = ["id", "q", "order_by", "x_token", "item", "flag"]
RESULTS: list[Any] = [
    None, 1, "text", 1.5, {"name": "n"}, {"name": "n", "thePrice": 2, "extra": 1}, {"number": 4}, {"a": 1},
    [{"name": "m"}], Item(name="n"), Item(name="né\u2028", price=3, tags=["t"]), Strict(number=2), [Item(name="o")],
    float("inf"), {"x": b"bytes"}, object(), "\ud800",
]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {}, {}, {}, {"status_code": 201}, {"status_code": 203, "response_model_exclude_unset": True},
    {"response_model_exclude_none": True}, {"response_model_exclude_defaults": True},
    {"response_model_by_alias": False},
    {"response_model_include": {"name"}},
    {"response_model_exclude": {"price", "item"}}, {"status_code": 204},
    {"status_code": 205}, {"status_code": 304}, {"response_class": JSONResponse}, {"response_class": PlainTextResponse},
    {"methods": ["POST", "PUT"]}, {"max_body_size": 20},
]  # fmt: skip
EFFECTS = [
    *["nothing"] * 24, "header", "cookie", "status", "http error", "known error", "unknown error", "json response",
    "text response", "stream", "failing stream", "raised with headers", "wrong status", "count", "mutate",
]  # fmt: skip
PREFIXES = {
    "app": "",
    "included": "/inner",
    "nested": "/api/outer",
    "nested twice": "/api/outer/inner",
    "mounted": "/mounted/one",
}
PATHS = ["/a", "/b/{id}", "/b/fixed", "/c/{id}/{item}", "/n/{id:int}", "/f/{id:path}", "/u/{id:uuid}", "/n/{id}"]
SPECIAL = [*["request", "connection", "response", "response", "bearer"] * 4, "tasks", "scopes"]
