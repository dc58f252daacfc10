"""The secrets of refresh tokens: how they are hashed, and the server keys that derive their successors."""

from collections.abc import Mapping
from typing import Final

from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.ports import SecretHasher, SuccessorKeys
from tequipy_auth.infrastructure.hashing import HashingPool, check_digest, is_bcrypt_digest, make_digest

SECRET_COST: Final = 4
"""bcrypt's lowest: the secret has 256 bits of its own, so slowness adds nothing."""

_ANY_CLIENT: Final = HashingClient("any")
"""All refreshes share one queue in the order of their arrival: at 1 ms each nobody fills it (ADR 0035)."""


class BcryptSecretHasher(SecretHasher):
    """Hashes in a pool; give it another pool than the passwords'.

    Measured on 2 cores: a hash of cost 4 takes 1.3 ms, the way to a thread and back 0.1 ms, and a refresh needs two
    hashes. Inline, 100 refreshes a second would hold the event loop for a quarter of the time; behind the passwords
    (300 ms each) a refresh would wait for seconds.
    """

    def __init__(self, pool: HashingPool, *, cost: int = SECRET_COST) -> None:
        self._pool = pool
        self._cost = cost

    async def hash(self, secret: str) -> str:
        """Return the bcrypt digest; the 43 characters of a secret are below bcrypt's 72 bytes."""
        return await self._pool.run(_ANY_CLIENT, make_digest, secret.encode(), self._cost)

    async def verify(self, secret: str, stored: str) -> bool:
        """Tell whether it is the secret; a malformed digest is False."""
        return is_bcrypt_digest(stored) and await self._pool.run(_ANY_CLIENT, check_digest, secret.encode(), stored)


class SettingsSuccessorKeys(SuccessorKeys):
    """Keys by version, the highest being the current one."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = keys

    @property
    def current_version(self) -> int:
        """The highest version."""
        return max(self._keys)

    def key(self, version: int) -> bytes | None:
        """Return the key of a version that the settings still name."""
        return self._keys.get(version)
