"""Polling with a deadline for effects of other processes."""

import time
from collections.abc import Callable


def eventually(what: str, probe: Callable[[], object], *, within: float = 60) -> None:
    """Poll until the probe returns a true value; fail with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.02)
