"""Object storage through obstore: a local folder, or memory."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore

from tequipy_platform._errors import Unavailable
from tequipy_platform._storage import ObjectExists, ObjectNotFound, ObjectStorage, StoredObject
from tequipy_platform.storage.settings import StorageSettings

if TYPE_CHECKING:
    from obstore import ObjectMeta  # exists for type checkers only

_INTERNAL: Final = ".tequipy/"
"""The prefix of unfinished objects and of the health check's object; `list` hides it."""

_CHUNK_BYTES: Final = 64 * 1024


class ObstoreStorage(ObjectStorage):
    """Objects in a local folder or in memory; the store is opened at first use."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings

    @cached_property
    def _store(self) -> LocalStore | MemoryStore:
        return MemoryStore() if self._settings.in_memory else LocalStore.from_url(self._settings.url, mkdir=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: no connection stays open between calls."""

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object; a stream is written under a temporary key and renamed, so it is never held in memory."""
        with _translated():
            if isinstance(content, bytes):
                await obstore.put_async(self._store, key, content, mode="create")
            else:
                await self._put_stream(key, content)
            return await self.head(key)

    async def _put_stream(self, key: str, content: AsyncIterator[bytes]) -> None:
        unfinished = f"{_INTERNAL}{uuid4()}"
        try:
            await obstore.put_async(self._store, unfinished, content)
            await obstore.rename_async(self._store, unfinished, key, overwrite=False)
        except BaseException:
            await self.delete(unfinished)
            raise

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Stream an object in pieces of at least 64 KiB."""
        with _translated():
            result = await obstore.get_async(self._store, key)
            async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata."""
        with _translated():
            return _describe(await obstore.head_async(self._store, key))

    async def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        with _translated():
            try:
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                return

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects below a prefix."""
        with _translated():
            async for batch in obstore.list(self._store, prefix=prefix or None):
                for meta in batch:
                    if not meta["path"].startswith(_INTERNAL):
                        yield _describe(meta)

    async def ping(self) -> None:
        """Write and read one small object under a constant key."""
        with _translated():
            await obstore.put_async(self._store, f"{_INTERNAL}ping", b"ping")
            await obstore.head_async(self._store, f"{_INTERNAL}ping")


def build_storage(settings: StorageSettings) -> ObstoreStorage:
    """Return the object storage at the configured URL."""
    return ObstoreStorage(settings)


def _describe(meta: "ObjectMeta") -> StoredObject:
    return StoredObject(key=meta["path"], size=meta["size"], modified_at=meta["last_modified"])


@contextmanager
def _translated() -> Iterator[None]:
    """Translate obstore's errors into the port's; an invalid key remains a `ValueError`."""
    try:
        yield
    except AlreadyExistsError as error:
        raise ObjectExists from error
    except FileNotFoundError as error:
        raise ObjectNotFound from error
    except (BaseError, OSError) as error:
        raise Unavailable from error
