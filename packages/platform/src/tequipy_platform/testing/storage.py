"""Object storage in memory."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from hashlib import sha256
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tequipy_platform import _storage
from tequipy_platform._clock import Clock
from tequipy_platform._storage import (
    ObjectExists,
    ObjectNotFound,
    ObjectStorage,
    ObjectTooLarge,
    StoredObject,
    check_key,
    check_lifetime,
    check_range,
    content_disposition,
)


class MemoryStorage(ObjectStorage):
    """Object storage in a dictionary; `server` is the address of presigned downloads, without which there are none."""

    def __init__(self, clock: Clock, *, server: str | None = None) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self._clock = clock
        self._server = server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object."""
        check_key(key)
        whole = content if isinstance(content, bytes) else b"".join([chunk async for chunk in content])
        if len(whole) > _storage.MAX_OBJECT_BYTES:
            raise ObjectTooLarge
        if key in self.objects:
            raise ObjectExists
        self.objects[key] = whole, self._clock.now()
        return await self.head(key)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Stream an object in one piece."""
        check_key(key)
        check_range(start, stop)
        if key not in self.objects:
            raise ObjectNotFound
        if content := self.objects[key][0][start:stop]:
            yield content

    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata."""
        check_key(key)
        if key not in self.objects:
            raise ObjectNotFound
        content, modified_at = self.objects[key]
        return StoredObject(key, len(content), modified_at, sha256(content).hexdigest())

    async def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        check_key(key)
        self.objects.pop(key, None)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects below a prefix."""
        folder = prefix.removesuffix("/")
        if folder:
            check_key(folder)
        for key, (content, modified_at) in sorted(self.objects.items()):
            if not folder or key.startswith(f"{folder}/"):
                yield StoredObject(key, len(content), modified_at)

    async def remove_unfinished(self, *, before: datetime) -> int:  # noqa: ARG002 -- the port's signature
        """Return 0: a put is stored at once."""
        return 0

    async def presign(
        self,
        key: str,
        *,
        filename: str,
        content_type: str = "application/octet-stream",
        expires_in: timedelta = timedelta(minutes=5),
    ) -> str | None:
        """Return a URL below `server` with name, content type and seconds in its query, or None without `server`."""
        check_key(key)
        check_lifetime(expires_in)
        if self._server is None:
            return None
        disposition = quote(content_disposition(filename), safe="")
        return (
            f"{self._server}/{key}?response-content-disposition={disposition}"
            f"&response-content-type={quote(content_type, safe='')}&X-Amz-Expires={int(expires_in.total_seconds())}"
        )

    async def ping(self) -> None:
        """Do nothing: memory is always available."""
