"""Which free text of users may be shown to others: visible characters in the order in which they were typed."""

import re
from typing import Final

from tequipy_auth.domain.exceptions import InvalidName

MAX_NAME_LENGTH: Final = 100
"""Characters of a display name."""

_INVISIBLE: Final = (
    r"\u0000-\u001f\u007f-\u009f"  # control characters (category Cc)
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional controls (UAX #9) and their deprecated relatives
    r"\u00ad\u034f\u180e\u200b-\u200d\u2060-\u2065\ufeff\ufff9-\ufffb"  # zero width
    r"\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # fillers: letters without a glyph
    r"\u2028\u2029"  # line and paragraph separators
)
"""A class of characters, in the syntax that Python, JavaScript and Rust share: up to U+FFFF.

Variation selectors are allowed: they choose a glyph of the character before them, and names in Japanese need them.
"""

VISIBLE: Final = f"^[^{_INVISIBLE}]*$"
"""The pattern of a text without invisible characters, for a JSON schema; it does not know those beyond U+FFFF."""

_invisible = re.compile(  # beyond U+FFFF: controls of shorthand and music, and tags
    f"[{_INVISIBLE}\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def display_name(text: str) -> str:
    """Return a display name with its outer spaces trimmed.

    Raises `InvalidName` unless it has 1 to 100 characters then, and none that is invisible before: such characters
    reorder, hide or imitate the text around them (Unicode Technical Report 36).
    """
    name = text.strip()
    if _invisible.search(text) or not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise InvalidName
    return name


def without_invisible(text: str) -> str:
    """Return a text without its invisible characters, for what cannot be refused, such as a user agent."""
    return _invisible.sub("", text)
