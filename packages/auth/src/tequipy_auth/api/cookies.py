"""The cookies: what a browser is told about them, and when one is taken back."""

from typing import Final

from fastapi import Request, Response

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.devices import MARK_TTL
from tequipy_auth.domain.value_objects import TokenPair
from tequipy_platform.api import read_cookie

SECURE_NAME: Final = "__Host-refresh"
"""Browsers take a cookie of this prefix only with `Secure`, without a domain and for every path (RFC 6265bis)."""

LOCAL_NAME: Final = "refresh"
"""On a developer's machine there is no TLS, so neither `Secure` nor the prefix that demands it."""


SECURE_DEVICE_NAME: Final = "__Host-device"
LOCAL_DEVICE_NAME: Final = "device"


def read_refresh_cookie(request: Request, auth: Auth) -> str | None:
    """Return the refresh token that the browser sent along, None when there is none."""
    return read_cookie(request, _name(auth)) or None


def set_refresh_cookie(response: Response, auth: Auth, pair: TokenPair) -> None:
    """Hand the refresh token to the browser, for as long as it can be used."""
    _write(response, auth, _name(auth), str(pair.refresh), max_age=pair.refresh_expires_in)


def delete_refresh_cookie(response: Response, auth: Auth) -> None:
    """Take the refresh token back from the browser."""
    _write(response, auth, _name(auth), "", max_age=0)


def read_device_cookie(request: Request, auth: Auth) -> str | None:
    """Return the mark of a browser that has logged in before, None when there is none."""
    return read_cookie(request, LOCAL_DEVICE_NAME if auth.local else SECURE_DEVICE_NAME) or None


def set_device_cookie(response: Response, auth: Auth, pair: TokenPair) -> None:
    """Mark the browser that has just logged in."""
    if pair.device_token is not None:
        name = LOCAL_DEVICE_NAME if auth.local else SECURE_DEVICE_NAME
        _write(response, auth, name, pair.device_token, max_age=int(MARK_TTL.total_seconds()))


def _write(response: Response, auth: Auth, name: str, value: str, *, max_age: int) -> None:
    # Deleting says the same attributes as setting: browsers ignore a __Host- cookie without them.
    response.set_cookie(name, value, max_age=max_age, path="/", secure=not auth.local, httponly=True, samesite="strict")


def _name(auth: Auth) -> str:
    return LOCAL_NAME if auth.local else SECURE_NAME
