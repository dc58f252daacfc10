"""Requests with an `Idempotency-Key` to the shipped app, on a real PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
from fastapi import FastAPI

from tequipy_platform import Mail

ADMIN = {"email": "admin@example.com", "password": "correct horse battery staple"}
INVITATIONS = "/api/v1/users/invitations"


async def test_parallel_requests_with_one_key_invite_once(
    app: FastAPI, client: httpx.AsyncClient, deliver_mails: Callable[[], Awaitable[list[Mail]]]
) -> None:
    """Of 20 parallel requests with one key one mail comes, each response is the first one or 409; a repeat is 202."""
    await app.state.auth.registration.create_admin(**ADMIN)
    login = await client.post("/api/v1/auth/login", json=ADMIN | {"token_delivery": "body"})
    headers = {"Authorization": f"Bearer {login.json()['access_token']}", "Idempotency-Key": "a-key"}
    await deliver_mails()
    body = {"email": "grace@example.com"}
    answers = await asyncio.gather(*(client.post(INVITATIONS, json=body, headers=headers) for _ in range(20)))
    outcomes = Counter((answer.status_code, answer.json().get("code", "accepted")) for answer in answers)
    print(f"\n20 parallel requests with one key: {dict(outcomes)}")
    assert set(outcomes) <= {(202, "accepted"), (409, "idempotency_key_in_use")}
    assert outcomes[202, "accepted"] >= 1
    repeat = await client.post(INVITATIONS, json=body, headers=headers)
    assert (repeat.status_code, repeat.json()) == (202, {"status": "accepted"})
    assert [mail.to for mail in await deliver_mails()] == ["grace@example.com"]
