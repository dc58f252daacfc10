"""The colours of a document; text has a contrast of at least 7 : 1 to the page (WCAG 2.2, 1.4.6)."""

from typing import Final

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

TEXT: Final[Colour] = (17, 24, 39)
MUTED: Final[Colour] = (75, 85, 99)
SHADE: Final[Colour] = (243, 244, 246)
RULE: Final[Colour] = (209, 213, 219)
LOGINS: Final[Colour] = (37, 99, 235)
FAILED_LOGINS: Final[Colour] = (217, 119, 6)
