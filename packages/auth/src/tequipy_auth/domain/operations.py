"""The metric `auth_operations_total{operation,status}`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from tequipy_platform import DomainError

P = ParamSpec("P")
R = TypeVar("R")


class Operations(ABC):
    """Counts the operations of auth."""

    @abstractmethod
    def count(self, operation: str, status: str) -> None:
        """Count one operation; both arguments are stable snake_case words, because they become metric labels."""


class Counting(Protocol):
    """A service with an operation counter."""

    _operations: Operations


S = TypeVar("S", bound=Counting)


def counted(
    operation: str,
) -> Callable[
    [Callable[Concatenate[S, P], Coroutine[Any, Any, R]]], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]
]:
    """Decorate a service's method to count each call, with the status `ok`, the error's code or `error`.

    Write it above `retry_conflicts`, so that a call with its retries counts as one operation.
    """

    def decorate(
        method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
        @wraps(method)
        async def count(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            status = "error"  # also for a cancelled call
            try:
                result = await method(self, *args, **kwargs)
                status = "ok"
            except DomainError as error:
                status = error.code
                raise
            finally:
                self._operations.count(operation, status)
            return result

        return count

    return decorate
