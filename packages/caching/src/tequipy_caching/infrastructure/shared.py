"""The second tier: values in Redis, shared by all processes."""

from collections.abc import Sequence
from typing import NamedTuple

from tequipy_caching.infrastructure.envelope import HEADER_BYTES, tombstone
from tequipy_caching.infrastructure.redis import RedisLink


class Found(NamedTuple):
    """A name as Redis had it."""

    sealed: bytes | None
    """What it held: an envelope, a tombstone, something foreign or None."""
    left: int
    """Milliseconds until Redis forgets it."""
    at: int
    """Redis's own clock when it was read, in milliseconds."""


class RedisTier:
    """Keeps sealed values, and tells the other processes what has changed. Raises `CacheUnavailable` as the link."""

    def __init__(self, link: RedisLink, *, tombstone_ttl: float) -> None:
        self.link = link
        self._tombstone_ms = round(tombstone_ttl * 1000)

    def tail(self, life: int) -> int:
        """Return the milliseconds to keep a value beyond its life, so that it outlives every load it must fence off."""
        return max(0, self._tombstone_ms - life)

    async def read(self, names: Sequence[str]) -> list[Found]:
        """Return names as they are, in their order."""
        at, *answers = await self.link.run("read", names)
        return [Found(sealed, left, at) for sealed, left in zip(answers[::2], answers[1::2], strict=True)]

    async def store(self, name: str, sealed: bytes, life: int, *, seen: Found) -> bool:
        """Keep what was loaded for `life` milliseconds unless the name has changed since it was seen."""
        beginning = (seen.sealed or b"")[:HEADER_BYTES]
        answer = await self.link.run("store", [name], [sealed, life, beginning, seen.at, self._tombstone_ms])
        return bool(answer)

    async def write(self, name: str, sealed: bytes, life: int, *, message: str) -> None:
        """Keep what was given for `life` milliseconds and tell the other processes, in one step."""
        await self.link.tell("write", [name], [sealed, life], message=message)

    async def remove(self, names: Sequence[str], *, message: str) -> None:
        """Put tombstones in the place of names and tell the other processes, in one step."""
        await self.link.tell("write", names, [tombstone(), self._tombstone_ms], message=message)
