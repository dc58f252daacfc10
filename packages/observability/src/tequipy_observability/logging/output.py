"""Standard output in whole lines."""

import asyncio
import sys
from collections import deque
from contextlib import suppress


class Output:
    """The current standard output, written in whole lines, in the order in which they were given.

    A line that cannot be written is dropped. The stream may be `None` (the process was started with standard output
    closed), closed, full, a pipe without a reader, or an object that replaced it.
    """

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()  # threads share it: each takes and adds one line at a time
        self._scheduled_on: asyncio.AbstractEventLoop | None = None

    def msg(self, line: bytes) -> None:
        """Write a line at once, after those that wait."""
        self._waiting.append(line)
        self.flush()

    debug = info = warning = warn = error = critical = fatal = exception = log = msg  # structlog calls these methods

    def write_soon(self, line: bytes) -> None:
        """Write a line together with all others of this turn of the event loop, when it ends; without a loop at once.

        Call it on the event loop's thread alone.
        """
        self._waiting.append(line)
        loop = self._scheduled_on
        if loop is not None and not loop.is_closed():  # a loop that was closed before the end of its turn never flushes
            return
        try:
            loop = asyncio.get_running_loop()  # a system call, to find out about a fork
        except RuntimeError:
            self.flush()
            return
        self._scheduled_on = loop
        loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._scheduled_on = None
        self.flush()

    def flush(self) -> None:
        """Write all lines that wait."""
        lines: list[bytes] = []
        with suppress(IndexError):
            while True:
                lines.append(self._waiting.popleft())
        if lines:
            _write(b"\n".join((*lines, b"")))


def _write(lines: bytes) -> None:
    stream = sys.stdout
    if stream is None:
        return
    try:
        # One write, because the buffer's lock then keeps lines of different threads apart.
        buffer = getattr(stream, "buffer", None)
        if buffer is None:  # a text stream, such as io.StringIO
            stream.write(lines.decode("utf-8", "backslashreplace"))
            stream.flush()
            return
        buffer.write(lines)
        buffer.flush()
    except Exception:  # noqa: BLE001, S110 -- logging must never end the request that logs
        pass
