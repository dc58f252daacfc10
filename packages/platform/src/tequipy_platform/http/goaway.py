"""GOAWAY of HTTP/2 (RFC 9113, section 6.8), which h2 takes for the end of the connection.

A server that is about to close a connection says GOAWAY with the last stream that it will answer, and goes on to answer
those up to it. h2 reads nothing after that frame, so that calls under way would fail.
"""

from collections.abc import Callable
from typing import Final

_HEADER_BYTES: Final = 9
_LONGEST: Final = 2**14
"""The longest frame that we allow a server to send."""
_RST_STREAM: Final = 3
_GOAWAY: Final = 7
_NO_ERROR: Final = 0
REFUSED_STREAM: Final = 7
"""The error code that says that a request was not processed."""


class GoawayFilter:
    """Replaces each GOAWAY without error by RST_STREAM for the streams that the server will not answer.

    `on_goaway` gets the last stream that the server will answer, and returns the open streams after it.
    """

    def __init__(self, on_goaway: Callable[[int], list[int]]) -> None:
        self._on_goaway = on_goaway
        self._rest = b""
        self._passing = 0
        """The bytes of the current frame that are still to come, and pass."""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes for h2; the begin of a frame may be kept until more of it comes."""
        data = self._rest + data
        passed, position = [], 0
        while True:
            end = min(position + self._passing, len(data))
            passed.append(data[position:end])
            self._passing -= end - position
            position = end
            if len(data) - position < _HEADER_BYTES:
                break
            size = _HEADER_BYTES + int.from_bytes(data[position : position + 3], "big")
            if data[position + 3] != _GOAWAY or size > _HEADER_BYTES + _LONGEST:
                self._passing = size
                continue
            if len(data) - position < size:
                break
            passed.append(self._replace(data[position : position + size]))
            position += size
        self._rest = data[position:]
        return b"".join(passed)

    def _replace(self, frame: bytes) -> bytes:
        last_stream = int.from_bytes(frame[9:13], "big") & 0x7FFFFFFF
        if int.from_bytes(frame[13:17], "big") != _NO_ERROR:
            return frame
        return b"".join(_reset(stream) for stream in self._on_goaway(last_stream))


def _reset(stream: int) -> bytes:
    """Return a frame RST_STREAM (RFC 9113, section 6.4)."""
    return b"\x00\x00\x04" + bytes([_RST_STREAM, 0]) + stream.to_bytes(4, "big") + REFUSED_STREAM.to_bytes(4, "big")
