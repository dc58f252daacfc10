"""The requests that the load of the proofs consists of."""

from collections.abc import Mapping
from uuid import uuid4

import httpx

from tequipy_devstack.proving.load import Route

ADMIN = "admin@example.com"
PASSWORD = "correct horse battery staple"  # noqa: S105 -- of accounts that exist during a test


def registration() -> Mapping[str, str]:
    """Return the body of a registration with a new address."""
    return {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}


def credentials() -> Mapping[str, str]:
    """Return the body of a login to the deployment's account."""
    return {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}


HEALTH = Route("GET", "/api/v1/health", 200)
REGISTER = Route("POST", "/api/v1/auth/register", 202, body=registration)


def traffic(url: str) -> list[Route]:
    """Log in, and return routes: without I/O, with a cached read, with a read, and with a write that a task follows.

    Logins are not among them, because the account would be locked, and has at most twenty sessions by default.
    """
    answer = httpx.post(f"{url}/api/v1/auth/login", json=dict(credentials())).raise_for_status()
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    me = Route("GET", "/api/v1/auth/me", 200, headers=bearer)
    sessions = Route("GET", "/api/v1/auth/sessions", 200, headers=bearer)
    return [HEALTH, me, sessions, REGISTER]
