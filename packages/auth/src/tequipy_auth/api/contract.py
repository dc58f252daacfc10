"""What the OpenAPI document says about cookies and new passwords."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from tequipy_auth.api.cookies import REFRESH_COOKIE, cookie_name
from tequipy_auth.api.schemas import NEW_PASSWORDS
from tequipy_auth.domain.auth import Auth
from tequipy_platform.web import extend_openapi

REFRESH_COOKIE_SCHEME: Final = "RefreshCookie"
"""The security scheme of the refresh cookie."""

REFRESH_OR_NOTHING: Final[list[dict[str, list[str]]]] = [{REFRESH_COOKIE_SCHEME: []}, {}]
"""The security of routes that take the refresh token from the cookie or the body."""


def _set_cookie(description: str) -> dict[str, Any]:
    return {"Set-Cookie": {"description": description, "schema": {"type": "string"}}}


SETS_COOKIES: Final = _set_cookie(
    "With the delivery `cookie`: the refresh token, and the mark of the device (`HttpOnly`, `SameSite=Strict`)."
)
ROTATES_COOKIE: Final = _set_cookie("The new refresh token, if the request had the cookie.")
DELETES_COOKIE: Final = _set_cookie("Deletes the refresh cookie.")
DELETES_COOKIE_OF_ENDED: Final = _set_cookie("Deletes the refresh cookie with `refresh_reused` and `session_revoked`.")

REFRESH_BODY: Final[Mapping[str, Any]] = {
    "content": {
        "application/json": {
            "examples": {
                "cookie": {"summary": "The token is in the cookie", "value": {}},
                "body": {
                    "summary": "The token is in the body",
                    "value": {"refresh_token": "rt1.AZ…22 characters….…43 characters…"},
                },
            }
        }
    }
}
"""The `requestBody` of routes with an optional refresh token; the first example works in a browser after a login."""

LOGIN_BODY: Final[Mapping[str, Any]] = {
    "content": {
        "application/json": {
            "examples": {
                "cookie": {
                    "summary": "A browser",
                    "value": {"email": "ada@example.com", "password": "correct horse battery staple"},
                },
                "body": {
                    "summary": "A client without a cookie jar",
                    "value": {
                        "email": "ada@example.com",
                        "password": "correct horse battery staple",
                        "token_delivery": "body",
                        "device_token": "dv2.4f1c….0.1801526400.m9Kx….77ab…",
                    },
                },
            }
        }
    }
}
"""The `requestBody` of the login."""


def wire_contract(app: FastAPI, auth: Auth) -> None:
    """Let the OpenAPI document have the refresh cookie as a security scheme, and the limits of new passwords."""

    def extend(document: dict[str, Any]) -> None:
        components = document["components"]
        components.setdefault("securitySchemes", {})[REFRESH_COOKIE_SCHEME] = {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie_name(auth, REFRESH_COOKIE),
            "description": "The refresh token: a login sets the cookie, and a browser sends it.",
        }
        policy = auth.policy
        for model, field in NEW_PASSWORDS:
            _schema_of(model, components["schemas"])["properties"][field] |= {
                "minLength": policy.password_min_length,
                "maxLength": policy.password_max_length,
                "description": "Not common, and not the address. The length is that in Unicode normalisation form "
                "NFKC, which only ligatures and combining characters change.",
            }

    extend_openapi(app, extend)


def _schema_of(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    # pydantic puts modules into the names of models if the host has one of the same name.
    long_name = f"{model.__module__}.{model.__qualname__}".replace(".", "__")
    schema: dict[str, Any] = schemas[long_name if long_name in schemas else model.__name__]
    return schema
