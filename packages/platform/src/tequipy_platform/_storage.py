"""Object storage: the port, and its errors."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from tequipy_platform._errors import Conflict, NotFound


class ObjectNotFound(NotFound):
    """There is no object under this key."""

    code = "object_not_found"


class ObjectExists(Conflict):
    """An object with this key exists already; objects are never overwritten."""

    code = "object_exists"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Metadata of an object; `size` is in bytes."""

    key: str
    size: int
    modified_at: datetime


class ObjectStorage(ABC):
    """A port that stores objects; every method raises `Unavailable` when the store cannot be reached."""

    @abstractmethod
    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object completely or not at all; raises `ObjectExists` when the key is taken."""

    @abstractmethod
    def get(self, key: str) -> AsyncIterator[bytes]:
        """Stream an object; the first step raises `ObjectNotFound` if there is none."""

    @abstractmethod
    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata; raises `ObjectNotFound`."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove an object; does nothing when there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects whose key begins with `prefix`, which consists of complete path segments."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when objects can be written and read."""
