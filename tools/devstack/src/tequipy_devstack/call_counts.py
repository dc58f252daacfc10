"""Counts the calls of a coroutine function: its cost in a number that is the same on every machine."""

import sys
from collections.abc import Awaitable, Callable
from typing import ParamSpec

P = ParamSpec("P")


async def calls_of(function: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs) -> int:
    """Return how many Python and C functions one call of a coroutine function calls, itself included."""
    count = 0

    def counted(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(counted)
    try:
        await function(*args, **kwargs)
    finally:
        sys.setprofile(None)
    return count - 1  # the second `setprofile`
