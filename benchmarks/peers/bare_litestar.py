"""Bare Litestar: the same typed routes with dataclasses, as in its documentation; msgspec validates them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Litestar, get, post
from msgspec import Meta

CREATED_AT = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
ID = UUID("01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e")


@dataclass
class Health:
    """The body of the health route."""

    status: Literal["ok"] = "ok"


@dataclass
class Me:
    """An account."""

    id: UUID
    email: str
    email_verified: bool
    name: str | None
    roles: list[str]
    permissions: list[str]
    created_at: datetime


@dataclass
class OrderLine:
    """One line of an order."""

    sku: Annotated[str, Meta(min_length=1, max_length=40)]
    quantity: Annotated[int, Meta(ge=1, le=1000)]


@dataclass
class OrderRequest:
    """The validated body of an order."""

    reference: UUID
    currency: Literal["EUR", "USD"]
    lines: Annotated[list[OrderLine], Meta(min_length=1, max_length=20)]
    note: Annotated[str, Meta(max_length=200)] | None = None


@dataclass
class Order:
    """The response of an order."""

    id: UUID
    reference: UUID
    currency: Literal["EUR", "USD"]
    items: int
    created_at: datetime


@get("/api/v1/health")
async def health() -> Health:
    """Return a constant."""
    return Health()


@get("/api/v1/auth/me")
async def me() -> Me:
    """Return a constant account."""
    return Me(
        ID, "admin@example.com", email_verified=True, name=None, roles=["user"], permissions=[], created_at=CREATED_AT
    )


@post("/api/v1/orders")
async def create_order(data: OrderRequest) -> Order:
    """Return an order for a validated body."""
    return Order(ID, data.reference, data.currency, sum(line.quantity for line in data.lines), CREATED_AT)


app = Litestar([health, me, create_order])
