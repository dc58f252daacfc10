"""The body of a response: decompressed in small pieces, and limited in length."""

import zlib
from collections.abc import AsyncIterator
from typing import Final

import httpx

from tequipy_platform.http.errors import ResponseTooLarge

ACCEPT_ENCODING: Final = "gzip, deflate"
"""The encodings that `decoded` knows (RFC 9110, section 8.4.1)."""
_PIECE_BYTES: Final = 64 * 1024
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


def decoded(response: httpx.Response, max_bytes: int) -> httpx.Response:
    """Return the response with a body that is decompressed and raises `ResponseTooLarge` beyond `max_bytes`.

    httpx decompresses each chunk as a whole, and 64 KiB of gzip can hold 64 MiB.
    """
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 -- for the type checker
    headers = response.headers.copy()
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        # They describe the compressed body, which the caller does not see.
        del headers["Content-Encoding"]
        headers.pop("Content-Length", None)
    elif encoding != "identity":
        # httpx would decode some of them without a bound.
        raise httpx.DecodingError("The response is compressed in a way that the request does not accept.")
    return httpx.Response(
        response.status_code,
        headers=headers,
        stream=_DecodedBody(response.stream, compressed=encoding != "identity", max_bytes=max_bytes),
        extensions=response.extensions,
    )


class _DecodedBody(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, *, compressed: bool, max_bytes: int) -> None:
        self._stream = stream
        self._compressed = compressed
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for piece in self._decompressed() if self._compressed else self._stream:
            length += len(piece)
            if length > self._max_bytes:
                raise ResponseTooLarge(f"The body of the response is longer than {self._max_bytes} bytes.")
            yield piece

    async def _decompressed(self) -> AsyncIterator[bytes]:
        decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            async for chunk in self._stream:
                rest = chunk
                while rest:
                    piece = decompressor.decompress(rest, _PIECE_BYTES)
                    rest = decompressor.unconsumed_tail
                    if piece:
                        yield piece
            if piece := decompressor.flush():
                yield piece
        except zlib.error as error:
            raise httpx.DecodingError("The compressed body of the response is damaged.") from error

    async def aclose(self) -> None:
        """Release the connection."""
        await self._stream.aclose()
