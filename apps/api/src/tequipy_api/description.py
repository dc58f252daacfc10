"""What the OpenAPI document says about the API as a whole."""

from typing import Any, Final

from tequipy_api.settings import ApiSettings

_DESCRIPTION: Final = """\
The rules of all routes:

- **Errors** are problem documents (RFC 9457, `application/problem+json`). Branch on `code`, which is stable; `detail`
  is for people. Beside its documented errors, an operation can have `head_too_large` (431), `request_timeout` (408) and
  `internal_error` (500); an unknown route is `not_found` (404) or `method_not_allowed` (405).
- **Authentication**: a login takes JSON with address and password, and returns an access token for the header
  `Authorization: Bearer`. There is no OAuth 2 grant. The refresh token is in a cookie, or in the body if the login
  asks for `token_delivery: body`.
- **Unknown fields** in a request body are refused (422).
- **Times** are RFC 3339 in UTC, identifiers are UUIDs of version 7.
- **Correlation**: send `X-Correlation-ID` (1 to 128 letters, digits, `.`, `_` or `-`) to choose the id of the request
  in logs and problems.
"""

_TAGS: Final = [
    {
        "name": "accounts and sessions",
        "description": "Registration, login, refresh and logout, passwords, and the caller's own account.",
    },
    {
        "name": "administration",
        "description": "Accounts, invitations, roles and the audit, for callers with the named permissions.",
    },
    {"name": "reports", "description": "Reports about the activity of all accounts, generated in the background."},
    {"name": "service", "description": "Health of the process and of what it needs, for probes."},
]


def describe(settings: ApiSettings) -> dict[str, Any]:
    """Return the arguments of `FastAPI` that describe the API.

    The server is that of the document itself, so that `/docs` works at every address of it.
    """
    return {
        "title": settings.app_name,
        "version": settings.app_version,
        "summary": "Accounts, sessions, roles and reports.",
        "description": _DESCRIPTION,
        "contact": {"name": f"The operators of {settings.app_name}", "url": settings.public_url},
        "license_info": {"name": "MIT", "identifier": "MIT"},
        "servers": [{"url": "/", "description": "The host of this document."}],
        "openapi_tags": _TAGS,
    }
