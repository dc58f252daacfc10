"""The bodies that all servers of a comparison exchange; the shipped app has its own `Me`, with the same fields."""

from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, Field


class Health(BaseModel):
    """The body of the health route."""

    status: Literal["ok"] = "ok"


class Me(BaseModel):
    """An account, with the fields of `GET /api/v1/auth/me`."""

    id: UUID
    email: str
    email_verified: bool
    name: str | None
    roles: list[str]
    permissions: list[str]
    created_at: datetime


class OrderLine(BaseModel):
    """One line of an order."""

    sku: str = Field(min_length=1, max_length=40)
    quantity: int = Field(ge=1, le=1000)


class OrderRequest(BaseModel):
    """The validated JSON body of `POST /api/v1/orders`."""

    reference: UUID
    currency: Literal["EUR", "USD"]
    note: str | None = Field(default=None, max_length=200)
    lines: list[OrderLine] = Field(min_length=1, max_length=20)


class Order(BaseModel):
    """The response of `POST /api/v1/orders`."""

    id: UUID
    reference: UUID
    currency: Literal["EUR", "USD"]
    items: int
    created_at: datetime


class Product(BaseModel):
    """The response of `GET /api/v1/products/{number}`."""

    number: int
    name: str
    price: int


CREATED_AT: Final = datetime(2026, 1, 31, 10, 30, tzinfo=UTC)
ORDER_ID: Final = UUID("01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e")


def account() -> Me:
    """Return a constant account."""
    return Me(
        id=UUID("01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e"),
        email="admin@example.com",
        email_verified=True,
        name=None,
        roles=["user"],
        permissions=[],
        created_at=CREATED_AT,
    )


def order(request: OrderRequest) -> Order:
    """Return the order for a request; nothing is stored, so that the servers differ in their HTTP path only."""
    return Order(
        id=ORDER_ID,
        reference=request.reference,
        currency=request.currency,
        items=sum(line.quantity for line in request.lines),
        created_at=CREATED_AT,
    )
