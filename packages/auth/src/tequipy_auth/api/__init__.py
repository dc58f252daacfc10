"""Auth over HTTP: its routes, and the dependencies that protect the routes of other packages. Needs the extra `api`."""

try:
    import fastapi  # noqa: F401 -- asked for here, so that the answer names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("tequipy_auth.api needs FastAPI: install tequipy-auth[api]") from error

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_auth.api.dependencies import CurrentPrincipal, FreshPrincipal, get_principal, require_fresh
from tequipy_auth.api.no_store import NoStore
from tequipy_auth.api.routes import router, well_known_router
from tequipy_auth.domain.auth import Auth
from tequipy_platform.api import wire_rate_policy

__all__ = [
    "RATE_POLICIES",
    "CurrentPrincipal",
    "FreshPrincipal",
    "get_principal",
    "require_fresh",
    "wire_auth",
]

_PREFIX: Final = "/api/v1/auth"

RATE_POLICIES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "register": ("20/3600", ("/register",)),
    "forgot": ("20/3600", ("/password/forgot", "/verify-email/resend")),
    "login": ("60/60", ("/login",)),
    "refresh": ("120/60", ("/refresh",)),
}
"""How often each client address may use the routes that attackers like: name, default rate, paths below auth's own."""


def wire_auth(app: FastAPI, auth: Auth) -> None:
    """Attach auth's routes under `/api/v1/auth`, and its public keys at `/.well-known/jwks.json`.

    The app needs problem documents (`tequipy_platform.api.wire_errors`) and must have entered `auth` while it serves.
    `RATE_POLICIES` hold where the app has called `tequipy_platform.api.wire_rate_limits`.
    """
    app.state.auth = auth
    # The outermost, unlike other middleware: what those answer themselves (413, 500) is no more to be kept.
    app.user_middleware.insert(0, Middleware(NoStore, prefix=_PREFIX))
    app.include_router(router, prefix=_PREFIX)
    app.include_router(well_known_router)
    for name, (rate, paths) in RATE_POLICIES.items():
        wire_rate_policy(app, name, rate, *(_PREFIX + path for path in paths))
