"""Fake signing keys in memory, without cryptography."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.exceptions import KeyUnusable
from tequipy_auth.domain.ports import KeyMaker
from tequipy_auth.domain.repositories import SigningKeys


class FakeKeyMaker(KeyMaker):
    """Creates numbered keys that cannot sign; `versions` are those of the available key-encryption keys."""

    def __init__(self) -> None:
        self.versions = {1}
        self._made = 0

    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return the next key."""
        self._made += 1
        return SigningKey(f"key-{self._made}", "none", state, {}, b"encrypted", max(self.versions), now, now)

    def check(self, key: SigningKey) -> None:
        """Raise `KeyUnusable` unless the key's version is available."""
        if key.encryption_version not in self.versions or not key.private_key:
            raise KeyUnusable(f"Signing key {key.kid} cannot be decrypted.")

    def reencrypt(self, key: SigningKey) -> SigningKey | None:
        """Return the key with the highest version."""
        if key.encryption_version is not None:
            self.check(key)
        newest = max(self.versions)
        return None if key.encryption_version == newest else replace(key, encryption_version=newest)


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
