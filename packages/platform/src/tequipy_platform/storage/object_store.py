"""Object storage through obstore: S3-compatible, a local folder, or memory."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from tequipy_platform._clock import SystemClock
from tequipy_platform._errors import Unavailable
from tequipy_platform._storage import (
    MAX_OBJECT_BYTES,
    ObjectExists,
    ObjectStorage,
    StoredObject,
    check_key,
    check_lifetime,
    check_range,
    content_disposition,
)
from tequipy_platform.storage.content import PIECE_BYTES, Content
from tequipy_platform.storage.errors import failures, is_missing, translated
from tequipy_platform.storage.presigned import presign_get
from tequipy_platform.storage.settings import StorageSettings

if TYPE_CHECKING:
    import obstore
    import obstore.exceptions
    from obstore import AsyncWritableFile, GetOptions, ObjectMeta  # exist for type checkers only

    from tequipy_platform.storage.stores import Store
else:
    from tequipy_platform.storage import deferred as obstore

logger = logging.getLogger(__name__)

_INTERNAL: Final = ".tequipy/"
"""The prefix of unfinished uploads, digests and of the health check's object; `list` hides it."""
_UPLOADS: Final = f"{_INTERNAL}uploads/"
_PING: Final = f"{_INTERNAL}ping"
_CHUNK_BYTES: Final = 64 * 1024
_CONCURRENT_PARTS: Final = 4
_COPY_RATE: Final = 10 * 1024 * 1024
"""Bytes per second that S3 copies at least from one key to another."""


class ObstoreStorage(ObjectStorage):
    """Objects in S3, in a local folder or in memory; the store is opened at first use, after a fork."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._creates_once = False

    @cached_property
    def _store(self) -> "Store":
        from tequipy_platform.storage.stores import open_store  # noqa: PLC0415 -- imports obstore

        return open_store(self._settings)

    @cached_property
    def _copier(self) -> "Store":
        """The same store for copies, which S3 may answer after the whole copy only."""
        from tequipy_platform.storage.stores import open_store  # noqa: PLC0415 -- imports obstore

        longest = self._settings.timeout + MAX_OBJECT_BYTES / _COPY_RATE
        return open_store(self._settings, read_timeout=longest) if self._settings.bucket else self._store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: connections are closed when they have been idle."""

    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object; a stream of more than one piece is written under a temporary key and then copied."""
        check_key(key)
        source = Content(content)
        try:
            first = await source.read()
            if source.finished:
                with translated("put"):
                    await obstore.put_async(self._store, key, first, mode="create")
            else:
                await self._put_pieces(key, first, source)
        finally:
            await source.close()
        with translated("put"):
            meta = await obstore.head_async(self._store, key)
        return await self._keep_digest(meta, source.sha256)

    async def _put_pieces(self, key: str, piece: bytes, source: Content) -> None:
        """Upload in parts, which obstore cannot do on condition that the key is free; the copy afterwards is."""
        with translated("put"), suppress(FileNotFoundError):
            await obstore.head_async(self._store, key)
            raise ObjectExists  # before gigabytes are sent
        unfinished = f"{_UPLOADS}{uuid4()}"
        try:
            async with self._open_writer(unfinished) as writer:
                while piece:
                    with translated("put"):
                        await writer.write(piece)
                    piece = b"" if source.finished else await source.read()
                with translated("put"):
                    await writer.close()
            with translated("put"):
                async with asyncio.timeout(self._settings.timeout + source.size / _COPY_RATE):
                    await obstore.copy_async(self._copier, unfinished, key, overwrite=False)
        finally:
            with suppress(*failures()):
                await obstore.delete_async(self._store, unfinished)

    @asynccontextmanager
    async def _open_writer(self, key: str) -> AsyncIterator["AsyncWritableFile"]:
        """Yield a writer, and abort its upload when the block fails or is cancelled."""
        writer = obstore.open_writer_async(self._store, key, buffer_size=PIECE_BYTES, max_concurrency=_CONCURRENT_PARTS)
        try:
            yield writer
        except BaseException as error:
            with suppress(*failures()):
                await writer.__aexit__(type(error), error, error.__traceback__)
            raise

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Stream an object in pieces of at least 64 KiB."""
        check_key(key)
        check_range(start, stop)
        options: GetOptions = {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        with translated("get"):
            try:
                result = await obstore.get_async(self._store, key, options=options)
            except obstore.exceptions.GenericError as error:
                if not (options and await self._is_beyond_the_end(key, start, error)):
                    raise
                return
            async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    async def _is_beyond_the_end(self, key: str, start: int, error: Exception) -> bool:
        """Return whether a range failed because the object ends before it; obstore has no error of its own for that."""
        if self._settings.bucket and "status code: 416" not in str(error):
            return False
        return (await obstore.head_async(self._store, key))["size"] <= start

    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata, computing its SHA-256 if none was kept."""
        check_key(key)
        with translated("head"):
            meta = await obstore.head_async(self._store, key)
            try:
                kept = bytes(await (await obstore.get_async(self._store, _digest_key(key))).bytes_async())
            except FileNotFoundError:
                kept = b""
        sha256, _, e_tag = kept.decode(errors="replace").partition(" ")
        if e_tag and e_tag == meta["e_tag"]:
            return _describe(meta, sha256)
        return await self._compute_digest(key)

    async def _keep_digest(self, meta: "ObjectMeta", sha256: str) -> StoredObject:
        """Store the digest beside the object, together with the ETag of the content that it belongs to."""
        try:
            await obstore.put_async(self._store, _digest_key(meta["path"]), f"{sha256} {meta['e_tag']}".encode())
        except failures():
            logger.warning("storage_digest_lost", extra={"key": meta["path"]})  # `head` computes it again
        return _describe(meta, sha256)

    async def _compute_digest(self, key: str) -> StoredObject:
        """Read an object that was stored by another program, restored, or whose put was killed just before its end."""
        digest = hashlib.sha256()
        with translated("head"):
            result = await obstore.get_async(self._store, key)
            async for chunk in result.stream(min_chunk_size=PIECE_BYTES):
                await asyncio.to_thread(digest.update, chunk)
        return await self._keep_digest(result.meta, digest.hexdigest())

    async def delete(self, key: str) -> None:
        """Remove an object if it exists, after its digest."""
        check_key(key)
        for each in (_digest_key(key), key):
            with translated("delete"):
                try:
                    await obstore.delete_async(self._store, each)
                except FileNotFoundError as error:
                    if not is_missing(error):
                        raise

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects below a prefix."""
        folder = prefix.removesuffix("/")
        if folder:
            check_key(folder)
        with translated("list"):
            async for batch in obstore.list(self._store, prefix=folder or None):
                for meta in batch:
                    if not meta["path"].startswith(_INTERNAL):
                        yield _describe(meta, None)

    async def remove_unfinished(self, *, before: datetime) -> int:
        """Delete temporary objects; in a folder also the files of obstore's own writes that did not end."""
        removed = 0
        with translated("remove_unfinished"):
            async for batch in obstore.list(self._store, prefix=_UPLOADS):
                for meta in batch:
                    if meta["last_modified"] < before:
                        await obstore.delete_async(self._store, meta["path"])
                        removed += 1
            if self._settings.folder is not None:
                removed += await asyncio.to_thread(_remove_partial_files, self._settings.folder, before)
        return removed

    async def presign(
        self,
        key: str,
        *,
        filename: str,
        content_type: str = "application/octet-stream",
        expires_in: timedelta = timedelta(minutes=5),
    ) -> str | None:
        """Return a presigned URL of S3; None for a folder and for memory."""
        check_key(key)
        check_lifetime(expires_in)
        settings = self._settings
        if settings.bucket is None or settings.access_key_id is None or settings.secret_access_key is None:
            return None
        return presign_get(
            "/".join(filter(None, (settings.server, settings.bucket, settings.prefix, key))),
            {
                "response-content-disposition": content_disposition(filename),
                "response-content-type": content_type,
            },
            access_key_id=settings.access_key_id.get_secret_value(),
            secret_access_key=settings.secret_access_key.get_secret_value(),
            region=settings.region,
            now=SystemClock().now(),
            seconds=int(expires_in.total_seconds()),
        )

    async def ping(self) -> None:
        """Write and read one small object under a constant key; once, check that the store can refuse to overwrite."""
        with translated("ping"):
            await obstore.put_async(self._store, _PING, b"ping")
            await obstore.head_async(self._store, _PING)
            self._creates_once = self._creates_once or await self._refuses_to_overwrite()
        if not self._creates_once:
            logger.error("storage_overwrites", extra={"url": self._settings.url})
            raise Unavailable

    async def _refuses_to_overwrite(self) -> bool:
        """Return whether the store obeys the conditions of put and copy; some products ignore them."""
        for create in (
            lambda: obstore.put_async(self._store, _PING, b"ping", mode="create"),
            lambda: obstore.copy_async(self._store, _PING, _PING, overwrite=False),
        ):
            try:
                await create()
            except obstore.exceptions.AlreadyExistsError:
                continue
            return False
        return True


def build_storage(settings: StorageSettings) -> ObstoreStorage:
    """Return the object storage at the configured URL."""
    return ObstoreStorage(settings)


def _remove_partial_files(folder: Path, before: datetime) -> int:
    """Delete the files under which obstore writes what it then renames; no key has `#`."""
    removed = 0
    for path in folder.rglob("*#*"):
        with suppress(FileNotFoundError):  # another process removes or finishes it
            if path.stat().st_mtime < before.timestamp():
                path.unlink()
                removed += 1
    return removed


def _digest_key(key: str) -> str:
    return f"{_INTERNAL}sha256/{key}"


def _describe(meta: "ObjectMeta", sha256: str | None) -> StoredObject:
    return StoredObject(key=meta["path"], size=meta["size"], modified_at=meta["last_modified"], sha256=sha256)
