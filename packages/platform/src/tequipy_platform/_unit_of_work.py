"""The unit of work: one transaction for one use case, with retries after conflicts."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from tequipy_platform._errors import Unavailable
from tequipy_platform._idempotency import IdempotencyKeys
from tequipy_platform._messages import Inbox, Outbox

P = ParamSpec("P")
R = TypeVar("R")

CONFLICT_RETRIES: Final = 3
_FIRST_PAUSE: Final = 0.02
"""Seconds; a conflicting transaction has usually ended by then."""


class Conflicted(Unavailable):
    """The database rolled the transaction back because of a concurrent one (SQLSTATE 40001, 40P01).

    The use case can be retried. Callers see this error only where it was not retried or all retries failed; it is then
    handled as `Unavailable`.
    """


class UnitOfWork(ABC):
    """An async context manager around one transaction; packages subclass it to add their repositories.

    Leaving the block normally commits before it returns; leaving it by an exception rolls back. Raises `Unavailable`
    when the database cannot be reached, and `Conflicted` when a concurrent transaction was preferred.
    """

    outbox: Outbox
    inbox: Inbox
    idempotency: IdempotencyKeys

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Begin the transaction."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit after a normal end of the block, roll back after an exception."""


def retry_conflicts(use_case: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Decorate a use case so that it is retried, up to 3 times, when its transaction was `Conflicted`.

    Only for functions whose effects are all rolled back with their transactions. The pauses are random between 0 and
    20, 40 and 80 ms, so that conflicting callers do not conflict again.
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
