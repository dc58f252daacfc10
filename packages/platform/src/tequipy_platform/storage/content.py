"""The content of a put, in pieces that are hashed and counted on their way."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from tequipy_platform import _storage
from tequipy_platform._storage import ObjectTooLarge

PIECE_BYTES: Final = 5 * 1024 * 1024
"""The size of a part of an upload: S3 allows none that is smaller, besides the last."""

_MAX_INLINE: Final = 256 * 1024
"""Longer pieces are hashed in a thread, so that the event loop is not delayed by milliseconds."""


class Content:
    """Reads bytes or a stream piece by piece; afterwards `size` and `sha256` describe what was read."""

    def __init__(self, content: AsyncIterator[bytes] | bytes) -> None:
        self._source = _slices(content) if isinstance(content, bytes) else content
        self._digest = hashlib.sha256()
        self.size = 0
        self.finished = False
        """Whether the last piece has been read."""

    @property
    def sha256(self) -> str:
        """The digest of all pieces so far, in hexadecimal."""
        return self._digest.hexdigest()

    async def read(self) -> bytes:
        """Return the next piece of at least `PIECE_BYTES`; a shorter one is the last. Raises what the stream raises."""
        chunks: list[bytes] = []
        missing = PIECE_BYTES
        while missing > 0:
            try:
                chunk = await anext(self._source)
            except StopAsyncIteration:
                self.finished = True
                break
            chunks.append(chunk)
            missing -= len(chunk)
            self.size += len(chunk)
            if self.size > _storage.MAX_OBJECT_BYTES:
                raise ObjectTooLarge
        piece = b"".join(chunks)
        if len(piece) > _MAX_INLINE:
            await asyncio.to_thread(self._digest.update, piece)
        else:
            self._digest.update(piece)
        return piece

    async def close(self) -> None:
        """End the stream, even if it was not read to its end, so that it gives its resources back."""
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
