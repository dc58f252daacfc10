"""What the load of the proofs consists of."""

from collections.abc import Mapping
from uuid import uuid4

import httpx

from tequipy_devstack.proving.load import Route

ADMIN = "admin@example.com"
PASSWORD = "correct horse battery staple"  # noqa: S105 -- of accounts that live as long as a test


def registration() -> Mapping[str, str]:
    """Return the body of a registration that nobody has sent yet."""
    return {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}


def credentials() -> Mapping[str, str]:
    """Return the body of a login to the house's one account."""
    return {"email": ADMIN, "password": PASSWORD, "token_delivery": "body"}


HEALTH = Route("GET", "/api/v1/health", 200)
REGISTER = Route("POST", "/api/v1/auth/register", 202, body=registration)
LOGIN = Route("POST", "/api/v1/auth/login", 200, body=credentials)


def traffic(url: str) -> list[Route]:
    """Log in, and return routes without I/O, with a cached read, with reads and a write, with a task that follows."""
    answer = httpx.post(f"{url}/api/v1/auth/login", json=dict(credentials())).raise_for_status()
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return [HEALTH, Route("GET", "/api/v1/auth/me", 200, headers=bearer), LOGIN, REGISTER]
