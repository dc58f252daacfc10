"""Object storage: bytes under generated keys."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from tequipy_platform.domain.exceptions import Conflict, NotFound


class ObjectNotFound(NotFound):
    """There is no object under this key."""

    code = "object_not_found"


class ObjectExists(Conflict):
    """There is an object under this key already; objects are never overwritten."""

    code = "object_exists"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What is known of an object without reading it; `size` in bytes."""

    key: str
    size: int
    modified_at: datetime


class ObjectStorage(ABC):
    """Keeps objects; every method raises `Unavailable` when the store cannot be reached."""

    @abstractmethod
    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object whole or not at all; raises `ObjectExists` when the key is taken."""

    @abstractmethod
    def get(self, key: str) -> AsyncIterator[bytes]:
        """Stream an object; raises `ObjectNotFound` at the first step."""

    @abstractmethod
    async def head(self, key: str) -> StoredObject:
        """Describe an object; raises `ObjectNotFound`."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove an object; removing what is not there is no error."""

    @abstractmethod
    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Go through the objects whose key begins with `prefix`, a path of whole segments."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when objects can be stored and read."""
