"""Object storage in memory."""

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Self

from tequipy_platform._clock import Clock
from tequipy_platform._storage import ObjectExists, ObjectNotFound, ObjectStorage, StoredObject


class MemoryStorage(ObjectStorage):
    """Object storage in a dictionary."""

    def __init__(self, clock: Clock) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object."""
        whole = content if isinstance(content, bytes) else b"".join([chunk async for chunk in content])
        if key in self.objects:
            raise ObjectExists
        self.objects[key] = whole, self._clock.now()
        return await self.head(key)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Stream an object in one piece."""
        if key not in self.objects:
            raise ObjectNotFound
        yield self.objects[key][0]

    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata."""
        if key not in self.objects:
            raise ObjectNotFound
        content, modified_at = self.objects[key]
        return StoredObject(key, len(content), modified_at)

    async def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        self.objects.pop(key, None)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects below a prefix."""
        for key in sorted(self.objects):
            if not prefix or key.startswith(prefix.rstrip("/") + "/"):
                yield await self.head(key)

    async def ping(self) -> None:
        """Do nothing: memory is always available."""
