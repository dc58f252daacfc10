"""The binding of a manager or limiter to one event loop and process: its connections work in no other."""

import asyncio
import os

from tequipy_caching._exceptions import WrongEventLoop


class LoopBinding:
    """Binds at the first use, until all connections are closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def check(self) -> None:
        """Bind to the running event loop; raise `WrongEventLoop` in another event loop or process."""
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._loop is None:
            self._loop, self._process = loop, process
        elif process != self._process:
            raise WrongEventLoop(
                f"this cache or limiter belongs to the process {self._process}, and this one ({process}) is a fork:"
                " build and enter another one after the fork"
            )
        elif loop is not self._loop:
            ended = " which has ended" if self._loop.is_closed() else ""
            raise WrongEventLoop(
                f"this cache or limiter belongs to another event loop{ended}: build and enter one in each event loop,"
                " or hand the call over by `asyncio.run_coroutine_threadsafe`"
            )

    def unbind(self) -> None:
        """Remove the binding, so that the next use may be in another event loop or process."""
        self._loop = None
