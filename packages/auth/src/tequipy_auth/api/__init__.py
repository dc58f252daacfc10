"""The HTTP API of auth: routes, and dependencies that protect routes of other packages. Needs the extra `api`."""

from collections.abc import Mapping
from typing import Final

from tequipy_observability import needs_extra

with needs_extra("tequipy-auth[api]"):
    from tequipy_caching.api import wire_rate_policy, wire_unlimited_routes  # loads FastAPI and tequipy-platform[api]

from fastapi import FastAPI

from tequipy_auth.api.contract import wire_contract
from tequipy_auth.api.dependencies import CALLER_PROBLEMS, CurrentPrincipal, FreshPrincipal
from tequipy_auth.api.permissions import RequirePermission, wire_permissions
from tequipy_auth.api.routes import (
    administration_router,
    me,
    passwords,
    registration,
    router,
    sessions,
    users,
    well_known,
    well_known_router,
)
from tequipy_auth.domain.auth import Auth
from tequipy_observability.api import endpoints_of
from tequipy_platform.web import wire_body_limit, wire_no_store

__all__ = [
    "CALLER_PROBLEMS",
    "RATE_POLICIES",
    "CurrentPrincipal",
    "FreshPrincipal",
    "RequirePermission",
    "wire_auth",
]

BODY_SIZE: Final = 64 * 1024
"""The maximum size of a request body for routes of auth, in bytes."""

RATE_POLICIES: Final[Mapping[str, tuple[str, tuple[object, ...]]]] = {
    "register": ("20/3600", (registration.register,)),
    "forgot": ("20/3600", (passwords.forgot_password, registration.resend_verification)),
    "login": (
        "60/60",
        (
            sessions.login,
            passwords.reauthenticate,
            passwords.change_password,
            passwords.reset_password,
            me.delete_me,
            registration.verify_email,
            registration.accept_invitation,
        ),
    ),
    "refresh": ("120/60", (sessions.refresh,)),
}
"""Rate limit policies per client address: name, default rate, and the endpoints that share the limit.

Every route that hashes a password has a policy.
"""


def wire_auth(
    app: FastAPI, auth: Auth, *, prefix: str = "/api/v1/auth", administration_prefix: str = "/api/v1"
) -> None:
    """Attach auth's routes under `prefix`, and its public keys at `/.well-known/jwks.json`.

    The routes for administrators are `/users`, `/roles` and `/audit-events` under `administration_prefix`.

    The app needs `NoStore` and problem documents (`wire_errors`, both of `tequipy_platform.web`), and must keep `auth`
    entered while it serves. `RATE_POLICIES` take effect with `tequipy_caching.api.LimitRates` in its pipeline.
    """
    app.state.auth = auth
    endpoints = [*endpoints_of(router), *endpoints_of(administration_router)]
    app.include_router(router, prefix=prefix)
    app.include_router(administration_router, prefix=administration_prefix)
    app.include_router(well_known_router)
    # The account that an administrator sees has an entity tag instead.
    wire_no_store(app, *(each for each in endpoints if each is not users.get_user))
    wire_permissions(app, auth)
    wire_contract(app, auth)
    wire_body_limit(app, BODY_SIZE, *endpoints)
    wire_unlimited_routes(app, well_known.get_jwks)
    for name, (rate, limited) in RATE_POLICIES.items():
        wire_rate_policy(app, name, rate, *limited)
