"""What a refused request is told about its origin."""

import re
from typing import Final

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]{1,253}(:[0-9]{1,5})?|https?://\[[0-9a-f:.]{2,45}\](:[0-9]{1,5})?")
"""The origins of web pages in the spelling of browsers (RFC 6454, section 6.2); nothing else is repeated in answers."""


def origin_refusal(origin: str, *, setting: str | None) -> str:
    """Return the sentence that an `Origin` header is not allowed, and which setting lists those that are.

    `setting` is the name that operators know; None: it is not named.
    """
    if origin == "null":
        return "The Origin header is null, which no setting allows: serve the page by HTTP, outside of a sandbox."
    named = f"The Origin header names {origin}" if _ORIGIN.fullmatch(origin) else "The Origin header names no web page"
    remedy = f"; {setting} lists the origins that are" if setting else ""
    return f"{named}, which is not allowed{remedy}."
