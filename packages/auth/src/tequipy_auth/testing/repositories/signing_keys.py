"""Signing keys in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.repositories import SigningKeys


class MemorySigningKeys(SigningKeys):
    """Stores signing keys by id."""

    def __init__(self) -> None:
        self.rows: dict[str, SigningKey] = {}

    async def lock(self) -> None:
        """Do nothing, because units of work in memory run one after the other."""

    async def all(self) -> Sequence[SigningKey]:
        """Return all keys, oldest first."""
        return sorted(self.rows.values(), key=lambda key: (key.created_at, key.kid))

    async def add(self, key: SigningKey) -> None:
        """Store a key."""
        self._refuse_two_active(key)
        self.rows[key.kid] = key

    async def move(self, kid: str, state: KeyState, *, at: datetime) -> None:
        """Change the state of a key."""
        key = replace(self.rows[kid], state=state, state_changed_at=at)
        if state is KeyState.REVOKED:
            key = replace(key, private_key=b"")
        self._refuse_two_active(key)
        self.rows[kid] = key

    async def replace(self, key: SigningKey) -> None:
        """Replace the private key and its version."""
        self.rows[key.kid] = replace(
            self.rows[key.kid], private_key=key.private_key, encryption_version=key.encryption_version
        )

    def _refuse_two_active(self, key: SigningKey) -> None:
        active = [row for row in self.rows.values() if row.state is KeyState.ACTIVE and row.kid != key.kid]
        if key.state is KeyState.ACTIVE and active:
            raise ValueError("there is an active key already")
