"""Durations in settings: a number is in seconds, also when it comes as text from the environment."""

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from math import isfinite


def read_seconds(policy: type) -> Callable[[object], object]:
    """Return a `BeforeValidator` for a dataclass with durations: it reads a text such as `900` as seconds.

    Any other text is left for pydantic, which accepts ISO 8601 (`PT15M`) and reports the rest by name.
    """
    durations = frozenset(each.name for each in fields(policy) if each.type is timedelta)

    def read(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: _number(each) if name in durations else each for name, each in value.items()}

    return read


def _number(value: object) -> object:
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return value if number is None or not isfinite(number) else number
