"""The parameter type `IdempotencyKey`."""

from hashlib import sha256

import httpx
import pytest
from fastapi import FastAPI

from tequipy_platform.web import IdempotencyKey, StrictModel

from .example_app import make_app

FIELD = "Idempotency-Key"


class Thing(StrictModel):
    name: str


def app_with_keys() -> FastAPI:
    app = make_app()

    @app.post("/things/{number}")
    async def add(number: int, key: IdempotencyKey, body: Thing) -> list[str] | None:
        del number, body
        return None if key is None else [key.route, key.key, key.digest.hex()]

    return app


async def post(headers: list[tuple[str, str | bytes]], body: bytes = b'{"name": "a"}') -> httpx.Response:
    transport = httpx.ASGITransport(app_with_keys())
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        fields = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
        return await client.post("/things/7", content=body, headers=[(b"content-type", b"application/json"), *fields])


@pytest.mark.parametrize("key", ["!", "~" * 128, '"quoted"', "0f3d5c9e-6f0b-4a53-9d0a-2f7f8f1f6a4e"])
async def test_a_key_has_the_route_and_a_digest_of_the_body(key: str) -> None:
    """A key of 1 to 128 visible ASCII characters reaches the route, with method, path and the SHA-256 of the body."""
    body = b'{"name":"b"}'
    assert (await post([(FIELD, key)], body)).json() == ["POST /things/7", key, sha256(body).hexdigest()]
    assert (await post([])).json() is None


@pytest.mark.parametrize(
    "fields",
    [
        [(FIELD, "")],
        [(FIELD, "x" * 129)],
        [(FIELD, "a b")],
        [(FIELD, b"\xc3\xa4")],
        [(FIELD, b"a\x7f")],
        [(FIELD, "a"), (FIELD, "b")],
        [(FIELD, "a"), (FIELD, "a")],
    ],
    ids=str,
)
async def test_other_keys_are_refused(fields: list[tuple[str, str | bytes]]) -> None:
    """An empty, too long, non-ASCII or repeated key is 422 `validation_failed` with the field's name, not its value."""
    answer = await post(fields)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/Idempotency-Key"]
    assert "x" * 129 not in answer.text


async def test_the_body_is_checked_too() -> None:
    """A key does not change how a malformed body is refused."""
    assert (await post([(FIELD, "a")], b"{")).json()["code"] == "malformed_body"
