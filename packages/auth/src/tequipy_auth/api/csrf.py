"""Cross-site request forgery: which requests may use the refresh cookie, beside SameSite=Strict."""

from typing import Final

from fastapi import Request

from tequipy_auth.domain.auth import Auth
from tequipy_auth.domain.exceptions import CsrfFailed
from tequipy_platform.api import UnsupportedMediaType

_OWN_SITES: Final = frozenset({"same-origin", "same-site", "none"})
_FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


async def refuse_forms(request: Request) -> None:
    """Raise `UnsupportedMediaType` for what HTML forms send: any page of any site may send it anywhere."""
    if request.method != "GET" and _media_type(request) in _FORMS:
        raise UnsupportedMediaType


def refuse_cross_site(request: Request, auth: Auth) -> None:
    """Raise `CsrfFailed` unless the request comes from our own pages, or from no page at all.

    It must carry what no form of another site can send (a JSON content type, or `X-Requested-With`); an `Origin`, if
    present, must be ours (RFC 6454); so must a `Sec-Fetch-Site`, if present (W3C Fetch Metadata). Call it before the
    token is looked at, so that a forged request uses nothing up.
    """
    headers = request.headers
    if not (_media_type(request) == "application/json" or "x-requested-with" in headers):
        raise CsrfFailed
    if not all(_is_own(origin, request, auth) for origin in headers.getlist("origin")):
        raise CsrfFailed
    if not _OWN_SITES.issuperset(headers.getlist("sec-fetch-site")):
        raise CsrfFailed


def _is_own(origin: str, request: Request, auth: Auth) -> bool:
    if origin in auth.origins:
        return True
    return auth.local and origin == f"{request.url.scheme}://{request.headers.get('host')}"


def _media_type(request: Request) -> str:
    """Return the media type without its parameters, lower case; empty when the request names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
