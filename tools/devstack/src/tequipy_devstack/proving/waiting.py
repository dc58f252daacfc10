"""Waiting for what other processes do: a poll with a deadline."""

import time
from collections.abc import Callable


def eventually(what: str, probe: Callable[[], object], *, within: float = 60) -> None:
    """Poll until the probe is true; fail with `what` when `within` seconds have passed."""
    deadline = time.monotonic() + within
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.02)
