"""Bare Starlette: the same routes without validation; the body is parsed, and the response is a dictionary."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ACCOUNT = {
    "id": "01948a5e-7c40-7b3a-9f0e-3d2c1b0a9f8e",
    "email": "admin@example.com",
    "email_verified": True,
    "name": None,
    "roles": ["user"],
    "permissions": list[str](),
    "created_at": "2026-01-31T10:30:00Z",
}


async def health(_: Request) -> Response:
    """Return a constant."""
    return JSONResponse({"status": "ok"})


async def me(_: Request) -> Response:
    """Return a constant account."""
    return JSONResponse(ACCOUNT)


async def create_order(request: Request) -> Response:
    """Return an order for a body, which is parsed but not validated."""
    body = await request.json()
    return JSONResponse(
        {
            "id": ACCOUNT["id"],
            "reference": body["reference"],
            "currency": body["currency"],
            "items": sum(line["quantity"] for line in body["lines"]),
            "created_at": ACCOUNT["created_at"],
        },
        status_code=201,
    )


app = Starlette(
    routes=[
        Route("/api/v1/health", health),
        Route("/api/v1/auth/me", me),
        Route("/api/v1/orders", create_order, methods=["POST"]),
    ]
)
