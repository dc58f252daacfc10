"""The unit of work: one use case, one transaction."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tequipy_platform.domain.outbox import Inbox, Outbox


class UnitOfWork(ABC):
    """An async context manager around one transaction; a package subclasses it to add its repositories.

    Leaving the block cleanly commits, and the commit is done when the block is left; leaving it by an exception rolls
    back. Raises `Unavailable` when the store cannot be reached.
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
