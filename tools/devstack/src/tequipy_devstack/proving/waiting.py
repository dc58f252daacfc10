"""Polling with a deadline for effects of other processes."""

import time
from collections.abc import Callable, Mapping
from functools import cache

import httpx


def eventually(what: str, probe: Callable[[], object], *, within: float = 60, every: float = 0.02) -> None:
    """Poll until the probe returns a true value; fail with `what` after `within` seconds.

    `every` is the pause between two polls. A probe that starts a process needs a longer one, because it takes processor
    time from what it waits for.
    """
    deadline = time.monotonic() + within
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(every)


def fetch(url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 5) -> httpx.Response:
    """Send GET over a new connection, like `httpx.get`; raises `httpx.TransportError` without a response.

    `httpx.get` reads all certificate authorities at each call. That takes 20 ms of processor time, which polling would
    take from the process that it waits for.
    """
    return _client().get(url, headers=headers, timeout=timeout)


def put(url: str) -> httpx.Response:
    """Send PUT without a body, like `httpx.put`, at the costs of `fetch`."""
    return _client().put(url)


@cache
def _client() -> httpx.Client:
    return httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
