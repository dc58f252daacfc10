"""The request header field `Idempotency-Key`."""

from hashlib import sha256
from typing import Annotated, Final

from fastapi import Depends, Header, Request

from tequipy_platform._errors import DomainError, Invalid
from tequipy_platform._idempotency import IdempotencyKeyInUse, IdempotencyKeyReused, IdempotentRequest

_FIELD: Final = "Idempotency-Key"

IDEMPOTENCY_PROBLEMS: Final[tuple[type[DomainError], ...]] = (IdempotencyKeyInUse, IdempotencyKeyReused)
"""The errors of a route with a parameter of the type `IdempotencyKey`, for `problem_responses`."""


async def _idempotent_request(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias=_FIELD,
            min_length=1,
            max_length=128,
            pattern="^[!-~]+$",
            description="Repeat a request whose response was lost with the same key: it has one effect, and gets the "
            "first response for 24 hours.",
            examples=["0f3d5c9e-6f0b-4a53-9d0a-2f7f8f1f6a4e"],
        ),
    ] = None,
) -> IdempotentRequest | None:
    if key is None:
        return None
    if len(request.headers.getlist(_FIELD)) > 1:
        detail = "Send one Idempotency-Key."
        raise Invalid(errors=[{"pointer": f"/{_FIELD}", "code": "repeated_field", "detail": detail}])
    # FastAPI has read the body before, so this does not wait.
    digest = sha256(await request.body()).digest()
    return IdempotentRequest(f"{request.method} {request.scope['path']}", key, digest)


IdempotencyKey = Annotated[IdempotentRequest | None, Depends(_idempotent_request)]
"""The key of a request with the digest of its body, or None; 422 unless it has 1 to 128 visible ASCII characters.

The use case passes it to `IdempotencyKeys` of its unit of work. Another body is one whose bytes differ.
"""
