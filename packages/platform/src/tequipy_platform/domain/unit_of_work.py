"""The unit of work: one use case, one transaction, begun again when a concurrent one got in its way."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from tequipy_platform.domain.exceptions import Unavailable
from tequipy_platform.domain.outbox import Inbox, Outbox

P = ParamSpec("P")
R = TypeVar("R")

CONFLICT_RETRIES: Final = 3
_FIRST_PAUSE: Final = 0.02
"""Seconds; the transaction that got in the way is likely to have ended by then."""


class Conflicted(Unavailable):
    """The store undid the transaction for the sake of a concurrent one (SQLSTATE 40001, 40P01): begun again, it may do.

    A caller sees it only when it was not, or in vain, tried again: then it is `Unavailable` like any other.
    """


class UnitOfWork(ABC):
    """An async context manager around one transaction; a package subclasses it to add its repositories.

    Leaving the block cleanly commits, and the commit is done when the block is left; leaving it by an exception rolls
    back. Raises `Unavailable` when the store cannot be reached, and `Conflicted` when a concurrent transaction won.
    """

    outbox: Outbox
    inbox: Inbox

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Begin the transaction."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit after a clean block, roll back otherwise."""


def retry_conflicts(use_case: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Decorate a use case so that it is begun again, up to 3 times, when its transaction was `Conflicted`.

    For methods that change nothing but what their units of work roll back. The pauses are drawn from 0 to 20, 40 and
    80 ms, so that those who got in each other's way do not meet again.
    """

    @wraps(use_case)
    async def repeat(*args: P.args, **kwargs: P.kwargs) -> R:
        for retry in range(CONFLICT_RETRIES):
            try:
                return await use_case(*args, **kwargs)
            except Conflicted:
                await asyncio.sleep(random.uniform(0, _FIRST_PAUSE * 2**retry))  # noqa: S311 -- jitter is no secret
        return await use_case(*args, **kwargs)

    return repeat
