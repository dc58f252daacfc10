"""Reading, setting and deleting of the refresh cookie and the device cookie."""

from typing import Final

from fastapi import Request, Response

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.devices import MARK_TTL
from tequipy_auth.domain.value_objects import TokenPair
from tequipy_platform.web import read_cookie

SECURE_NAME: Final = "__Host-refresh"
"""Browsers accept a cookie with this prefix only with `Secure`, without a domain and for path `/` (RFC 6265bis)."""

LOCAL_NAME: Final = "refresh"
"""The name on a developer's machine, which has no TLS and so cannot use `Secure` or the prefix that requires it."""


SECURE_DEVICE_NAME: Final = "__Host-device"
LOCAL_DEVICE_NAME: Final = "device"


def read_refresh_cookie(request: Request, auth: Auth) -> str | None:
    """Return the refresh token from the cookie, or None."""
    return read_cookie(request, _name(auth)) or None


def set_refresh_cookie(response: Response, auth: Auth, pair: TokenPair) -> None:
    """Set the refresh cookie with the remaining lifetime of the token."""
    _write(response, auth, _name(auth), str(pair.refresh), max_age=pair.refresh_expires_in)


def delete_refresh_cookie(response: Response, auth: Auth) -> None:
    """Delete the refresh cookie."""
    _write(response, auth, _name(auth), "", max_age=0)


def read_device_cookie(request: Request, auth: Auth) -> str | None:
    """Return the device mark from the cookie, or None."""
    return read_cookie(request, LOCAL_DEVICE_NAME if auth.local else SECURE_DEVICE_NAME) or None


def set_device_cookie(response: Response, auth: Auth, pair: TokenPair) -> None:
    """Set the device cookie after a login."""
    if pair.device_token is not None:
        name = LOCAL_DEVICE_NAME if auth.local else SECURE_DEVICE_NAME
        _write(response, auth, name, pair.device_token, max_age=int(MARK_TTL.total_seconds()))


def _write(response: Response, auth: Auth, name: str, value: str, *, max_age: int) -> None:
    # Deleting needs the same attributes as setting: otherwise browsers ignore the header of a `__Host-` cookie.
    response.set_cookie(name, value, max_age=max_age, path="/", secure=not auth.local, httponly=True, samesite="strict")


def _name(auth: Auth) -> str:
    return LOCAL_NAME if auth.local else SECURE_NAME
