"""Hashing of refresh token secrets, and the server keys that derive successors."""

from collections.abc import Mapping
from typing import Final

from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.ports import SecretHasher, SuccessorKeys
from tequipy_auth.infrastructure.hashing import HashingPool, check_digest, is_bcrypt_digest, make_digest
from tequipy_auth.infrastructure.settings import SECRET_COST

_ANY_CLIENT: Final = HashingClient("any")
"""All refreshes share one queue in order of arrival: at 1 ms each, no client can fill it (ADR 0035)."""


class BcryptSecretHasher(SecretHasher):
    """Hashes secrets in a pool, which must not be the pool for passwords.

    Measured on 2 cores: a hash of cost 4 takes 1.3 ms, switching to a thread and back 0.1 ms, and a refresh needs two
    hashes and one switch. Without threads, 100 refreshes per second would block the event loop for a quarter of the
    time. In the pool for passwords (300 ms each) a refresh would wait for seconds.
    """

    def __init__(self, pool: HashingPool, *, cost: int = SECRET_COST) -> None:
        self._pool = pool
        self._cost = cost

    async def hash(self, secret: str) -> str:
        """Return the bcrypt digest; the 43 characters of a secret are below bcrypt's 72 bytes."""
        return await self._pool.run(_ANY_CLIENT, make_digest, secret.encode(), self._cost)

    async def verify(self, secret: str, stored: str) -> bool:
        """Return whether the secret matches; a malformed digest returns False."""
        return is_bcrypt_digest(stored) and await self._pool.run(_ANY_CLIENT, check_digest, secret.encode(), stored)

    async def exchange(self, secret: str, stored: str, *, successor: str) -> str | None:
        """Compute both hashes in one call of the pool."""
        if not is_bcrypt_digest(stored):
            return None
        return await self._pool.run(_ANY_CLIENT, self._exchange, secret.encode(), stored, successor.encode())

    def _exchange(self, secret: bytes, stored: str, successor: bytes) -> str | None:
        return make_digest(successor, self._cost) if check_digest(secret, stored) else None


class SettingsSuccessorKeys(SuccessorKeys):
    """Provides successor keys by version; `current` is the version of new successors, or else the highest one is."""

    def __init__(self, keys: Mapping[int, bytes], *, current: int | None = None) -> None:
        self._keys = keys
        self._current = current or max(keys)

    @property
    def current_version(self) -> int:
        """The version of new successors."""
        return self._current

    def key(self, version: int) -> bytes | None:
        """Return the key of a version, or None if the settings no longer contain it."""
        return self._keys.get(version)
