"""Names of policies and sets: a part of keys in Redis, and a label of metrics."""

import re
from typing import Final

NAME_RULE: Final = "name must be 1 to 64 letters, digits, _, . and -"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_name(text: str) -> bool:
    """Tell whether a text is a name: without a colon none leads into another's namespace."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raise `ValueError` for a text that is no name."""
    if not is_name(name):
        raise ValueError(f"{NAME_RULE}, not {name!r}")
