"""Reading, setting and deleting of the refresh cookie and the device cookie."""

from typing import Final

from fastapi import Request, Response

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.devices import MARK_TTL
from tequipy_auth.domain.value_objects import TokenPair
from tequipy_platform.web import read_cookie

REFRESH_COOKIE: Final = "refresh"
DEVICE_COOKIE: Final = "device"

_SECURE_PREFIX: Final = "__Host-"
"""Browsers accept a cookie with this prefix only with `Secure`, without a domain and for path `/` (RFC 6265bis)."""


def read_refresh_cookie(request: Request, auth: Auth) -> str | None:
    """Return the refresh token from the cookie, or None."""
    return read_cookie(request, cookie_name(auth, REFRESH_COOKIE)) or None


def set_refresh_cookie(response: Response, auth: Auth, pair: TokenPair) -> None:
    """Set the refresh cookie with the remaining lifetime of the token."""
    _write(response, auth, REFRESH_COOKIE, str(pair.refresh), max_age=pair.refresh_expires_in)


def delete_refresh_cookie(response: Response, auth: Auth) -> None:
    """Delete the refresh cookie."""
    _write(response, auth, REFRESH_COOKIE, "", max_age=0)


def read_device_cookie(request: Request, auth: Auth) -> str | None:
    """Return the device mark from the cookie, or None."""
    return read_cookie(request, cookie_name(auth, DEVICE_COOKIE)) or None


def set_device_cookie(response: Response, auth: Auth, pair: TokenPair) -> None:
    """Set the device cookie after a login."""
    if pair.device_mark is not None:
        _write(response, auth, DEVICE_COOKIE, pair.device_mark, max_age=int(MARK_TTL.total_seconds()))


def _write(response: Response, auth: Auth, name: str, value: str, *, max_age: int) -> None:
    # Deleting needs the same attributes as setting: otherwise browsers ignore the header of a `__Host-` cookie.
    response.set_cookie(
        cookie_name(auth, name),
        value,
        max_age=max_age,
        path="/",
        secure=not auth.local,
        httponly=True,
        samesite="strict",
    )


def cookie_name(auth: Auth, name: str) -> str:
    """Return the cookie's name; a developer's machine has no TLS, which the prefix requires."""
    return name if auth.local else f"{_SECURE_PREFIX}{name}"
