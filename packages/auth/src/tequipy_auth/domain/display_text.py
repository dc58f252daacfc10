"""Validation of text that users enter and others see: visible characters in the order in which they were typed."""

import re
from typing import Final

from tequipy_auth.domain.exceptions import InvalidName

MAX_NAME_LENGTH: Final = 100
"""The maximum number of characters in a display name."""

_INVISIBLE_TO_FFFF: Final = (
    r"\u0000-\u001f\u007f-\u009f"  # control characters (category Cc)
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional controls (UAX #9) and deprecated ones
    r"\u00ad\u034f\u180e\u200b-\u200d\u2060-\u2065\ufeff\ufff9-\ufffb"  # zero width
    r"\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # fillers: letters without a glyph
    r"\u2028\u2029"  # line and paragraph separators
)
"""Invisible characters up to U+FFFF, as a character class that Python, JavaScript and Rust understand.

Variation selectors are allowed, because Japanese names need them: they choose a glyph for the character before them.
"""

VISIBLE_PATTERN: Final = f"^[^{_INVISIBLE_TO_FFFF}]*$"
"""A JSON schema pattern for text without invisible characters; it does not cover characters beyond U+FFFF."""

_SPACES: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"

NAME_PATTERN: Final = f"^[^{_INVISIBLE_TO_FFFF}]*[^{_INVISIBLE_TO_FFFF}{_SPACES}][^{_INVISIBLE_TO_FFFF}]*$"
"""The same for text with at least one character that is no space, so that a name is left when spaces are trimmed."""

_INVISIBLE_CHARACTERS: Final = re.compile(  # beyond U+FFFF: shorthand and music controls, and tags
    f"[{_INVISIBLE_TO_FFFF}\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def display_name(text: str) -> str:
    """Return a display name without leading and trailing spaces.

    Raises `InvalidName` if the result is empty or longer than 100 characters, or if the text contains an invisible
    character: such characters reorder, hide or imitate the text around them (Unicode Technical Report 36).
    """
    name = text.strip()
    if _INVISIBLE_CHARACTERS.search(text) or not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise InvalidName
    return name


def without_invisible(text: str) -> str:
    """Return the text without invisible characters; for input that is not rejected, such as a user agent."""
    return _INVISIBLE_CHARACTERS.sub("", text)
