"""The body of a response: decompressed in small pieces, and limited in length."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx

from tequipy_platform.http.errors import ResponseTooLarge

ACCEPT_ENCODING: Final = "gzip, deflate"
"""The encodings that `decoded` knows (RFC 9110, section 8.4.1)."""
_GZIP_ENCODINGS: Final = frozenset({"gzip", "x-gzip"})
_PIECE_BYTES: Final = 64 * 1024
_TURN_PIECES: Final = 8
"""Pieces after which other tasks run, because one packet may contain a thousand of them."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


def decoded(response: httpx.Response, max_bytes: int) -> httpx.Response:
    """Return the response with a body that is decompressed and raises `ResponseTooLarge` beyond `max_bytes`.

    httpx decompresses each chunk as a whole, and 64 KiB of gzip can hold 64 MiB.
    """
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 -- for the type checker
    headers = response.headers.copy()
    encoding = headers.get("Content-Encoding", "").strip().lower() or "identity"
    if encoding in _GZIP_ENCODINGS or encoding == "deflate":
        # They describe the compressed body, which the caller does not see.
        del headers["Content-Encoding"]
        headers.pop("Content-Length", None)
    elif encoding != "identity":
        # httpx would decode some of them without a bound, and several one after the other.
        raise httpx.DecodingError("The response is compressed in a way that the request does not accept.")
    return httpx.Response(
        response.status_code,
        headers=headers,
        stream=_DecodedBody(response.stream, encoding, max_bytes),
        extensions=response.extensions,
    )


class _DecodedBody(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, encoding: str, max_bytes: int) -> None:
        self._stream = stream
        self._encoding = encoding
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = pieces = 0
        async for piece in self._stream if self._encoding == "identity" else self._decompressed():
            length += len(piece)
            pieces += 1
            if length > self._max_bytes:
                raise ResponseTooLarge(f"The body of the response is longer than {self._max_bytes} bytes.")
            if piece:
                yield piece
            if pieces % _TURN_PIECES == 0:
                await asyncio.sleep(0)

    async def _decompressed(self) -> AsyncIterator[bytes]:
        inflater = _Inflater(gzip=self._encoding in _GZIP_ENCODINGS)
        try:
            async for chunk in self._stream:
                for piece in inflater.feed(chunk):
                    yield piece
            yield inflater.finish()
        except zlib.error as error:
            raise httpx.DecodingError("The compressed body of the response is damaged.") from error

    async def aclose(self) -> None:
        """Release the connection."""
        await self._stream.aclose()


class _Inflater:
    """Decompresses gzip (RFC 1952, any number of members) or deflate in small pieces; raises `zlib.error`.

    "deflate" is the zlib format (RFC 9110, section 8.4.1.2), and some servers send it without its header and trailer.
    """

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._is_empty = True
        self._start = b""
        self._decompressor = zlib.decompressobj(_GZIP) if gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes decompress to."""
        self._is_empty = self._is_empty and not data
        if self._decompressor is None:
            data = self._start = self._start + data
            if len(data) < 2:  # noqa: PLR2004 -- the length of a zlib header
                return
            self._decompressor = zlib.decompressobj(_ZLIB if _is_zlib(data) else _RAW)
        while data:
            if self._decompressor.eof:
                if not self._gzip:
                    raise zlib.error("more bytes after the end")
                self._decompressor = zlib.decompressobj(_GZIP)
            piece = self._decompressor.decompress(data, _PIECE_BYTES)
            data = self._decompressor.unused_data if self._decompressor.eof else self._decompressor.unconsumed_tail
            yield piece

    def finish(self) -> bytes:
        """Return the last bytes; the body has to be complete, or empty, as that of a HEAD request."""
        if self._is_empty:
            return b""
        if self._decompressor is None:
            raise zlib.error("no complete header")
        piece = self._decompressor.flush()
        if not self._decompressor.eof:
            raise zlib.error("no end")
        return piece


def _is_zlib(data: bytes) -> bool:
    """Return whether data begins with a header of zlib (RFC 1950, section 2.2)."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
