"""Events: facts that other packages may act on, published in the commit that made them true."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]
"""What fits into a message: no object of a domain, no secret."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact, named by package, dot and past participle (`auth.user_registered`), with JSON payload."""

    name: str
    payload: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))
