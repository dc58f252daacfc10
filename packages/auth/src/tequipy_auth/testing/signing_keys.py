"""Signing keys in memory, and made without cryptography."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.ports import KeyMaker
from tequipy_auth.domain.repositories import SigningKeys


class FakeKeyMaker(KeyMaker):
    """Keys that sign nothing, numbered."""

    def __init__(self) -> None:
        self._made = 0

    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return the next key."""
        self._made += 1
        return SigningKey(f"key-{self._made}", "none", state, {}, b"", now, now)


class MemorySigningKeys(SigningKeys):
    """Signing keys by id, in the order of their making."""

    def __init__(self) -> None:
        self.rows: dict[str, SigningKey] = {}

    async def lock(self) -> None:
        """Return at once: the blocks of the unit of work wait for each other anyway."""

    async def all(self) -> Sequence[SigningKey]:
        """Return every key."""
        return sorted(self.rows.values(), key=lambda key: (key.created_at, key.kid))

    async def add(self, key: SigningKey) -> None:
        """Keep a key."""
        self._refuse_two_active(key)
        self.rows[key.kid] = key

    async def move(self, kid: str, state: KeyState, *, at: datetime) -> None:
        """Put a key into another state."""
        key = replace(self.rows[kid], state=state, state_changed_at=at)
        self._refuse_two_active(key)
        self.rows[kid] = key

    def _refuse_two_active(self, key: SigningKey) -> None:
        active = [row for row in self.rows.values() if row.state is KeyState.ACTIVE and row.kid != key.kid]
        if key.state is KeyState.ACTIVE and active:
            raise ValueError("there is an active key already")
