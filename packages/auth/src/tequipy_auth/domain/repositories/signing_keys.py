"""The repository of signing keys."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from tequipy_auth.domain.entities import KeyState, SigningKey


class SigningKeys(ABC):
    """The signing keys, including the revoked ones."""

    @abstractmethod
    async def lock(self) -> None:
        """Lock the keys against other callers of this method until the unit of work ends."""

    @abstractmethod
    async def all(self) -> Sequence[SigningKey]:
        """Return all keys, oldest first."""

    @abstractmethod
    async def add(self, key: SigningKey) -> None:
        """Store a key."""

    @abstractmethod
    async def move(self, kid: str, state: KeyState, *, at: datetime) -> None:
        """Change the state of a key; only one key may be active. The private key of a revoked key is deleted."""

    @abstractmethod
    async def replace(self, key: SigningKey) -> None:
        """Replace the encrypted private key and the version of its key-encryption key."""
