"""Reading of cookies by name from the raw `Cookie` header (RFC 6265, section 4.2); values are never unquoted.

FastAPI and Starlette parse all cookies of every request by `http.cookies`, which takes quadratic time for a quoted
value full of backslashes (CVE-2024-7592, Python up to 3.11.9 and 3.12.5): 8,000 bytes block the event loop for 60 ms.
"""

import re
from functools import lru_cache
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import Scope

_SCOPE_KEY: Final = "tequipy.cookies"


def hide_cookies(scope: Scope) -> None:
    """Remove the `Cookie` headers from a request, so that only `read_cookie` finds them."""
    headers = scope["headers"]
    cookies = [value for name, value in headers if name == b"cookie"]
    if cookies:
        scope["headers"] = [header for header in headers if header[0] != b"cookie"]
        scope[_SCOPE_KEY] = cookies


def read_cookie(request: HTTPConnection, name: str) -> str | None:
    """Return the first cookie of this name as it was sent, or None; takes time linear in the header's length.

    Behind `LimitBodies` this is the only way to read a cookie: `request.cookies` and FastAPI's `Cookie()` see none.
    """
    headers = request.scope.get(_SCOPE_KEY)
    if headers is None:
        headers = [value for key, value in request.scope["headers"] if key == b"cookie"]
    pattern = _pattern(name)
    for header in headers:
        if match := pattern.search(header):
            return str(match[1], "latin-1").strip()
    return None


@lru_cache(maxsize=32)
def _pattern(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?:^|;)[ \t]*" + re.escape(name.encode("ascii")) + rb"[ \t]*=([^;]*)")
