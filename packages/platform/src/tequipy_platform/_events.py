"""Events: facts that a transaction publishes and that other packages may react to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]
"""A value that a message can carry. Messages hold neither domain objects nor secrets."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact with a JSON payload; its name is the package, a dot and a past participle (`auth.user_registered`)."""

    name: str
    payload: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))
