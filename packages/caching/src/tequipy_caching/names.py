"""The rules for names of policies and sets, which are parts of keys in Redis and labels of metrics."""

import re
from typing import Final

NAME_RULE: Final = "name must be 1 to 64 letters, digits, _, . and -"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_name(text: str) -> bool:
    """Return whether a text is a valid name; a colon is not allowed, because it separates the namespaces of keys."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raise `ValueError` for an invalid name."""
    if not is_name(name):
        raise ValueError(f"{NAME_RULE}, not {name!r}")
