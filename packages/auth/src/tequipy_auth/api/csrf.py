"""Protection from cross-site request forgery: which requests may use the refresh cookie, besides SameSite=Strict."""

from typing import Final

from fastapi import Request

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.exceptions import CsrfFailed
from tequipy_platform.web import REQUESTED_WITH_HEADER, UnsupportedMediaType, origin_refusal

_OWN_SITES: Final = frozenset({"same-origin", "same-site", "none"})
_FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


async def refuse_forms(request: Request) -> None:
    """Raise `UnsupportedMediaType` for content types of HTML forms, which pages of any site can submit."""
    if request.method != "GET" and _media_type(request) in _FORMS:
        raise UnsupportedMediaType


def refuse_cross_site(request: Request, auth: Auth) -> None:
    """Raise `CsrfFailed` unless the request comes from one of our own pages, or from no page at all.

    It must have a JSON content type or `X-Requested-With`, which forms of other sites cannot send. An `Origin` must be
    allowed (RFC 6454), and so must a `Sec-Fetch-Site` (W3C Fetch Metadata), if present. Call this before the token is
    used, so that a forged request does not use it up.
    """
    headers = request.headers
    if not (_media_type(request) == "application/json" or REQUESTED_WITH_HEADER in headers):
        raise CsrfFailed(
            f"The request has neither Content-Type: application/json nor the header {REQUESTED_WITH_HEADER}; "
            "send one of them, which forms of other sites cannot."
        )
    # Before the origin, because an origin of another site may be allowed, but never gets the cookie.
    if not _OWN_SITES.issuperset(headers.getlist("sec-fetch-site")):
        raise CsrfFailed(
            "The Sec-Fetch-Site header tells that the page is of another site than this API, which no setting allows: "
            "serve both under one scheme and registrable domain (localhost and 127.0.0.1 are two sites)."
        )
    for origin in headers.getlist("origin"):
        if not _is_own(origin, request, auth):
            raise CsrfFailed(origin_refusal(origin, setting=auth.origins_setting))


def _is_own(origin: str, request: Request, auth: Auth) -> bool:
    if origin in auth.origins:
        return True
    return auth.local and origin == f"{request.url.scheme}://{request.headers.get('host')}"


def _media_type(request: Request) -> str:
    """Return the media type in lower case, without parameters; empty when the header is missing."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
