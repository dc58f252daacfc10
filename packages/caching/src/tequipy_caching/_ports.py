"""The interface of the manager that creates the caches and expiring sets of a process."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from tequipy_caching.cache.ports import Cache
from tequipy_caching.expiring_set.ports import ExpiringSet, Source

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """The state of a process's caches towards Redis."""

    l2: Literal["up", "open", "refusing", "down"]
    """up: requests go to Redis; open: the circuit breaker skips Redis since a request failed; down: a probe has failed
    too; refusing: Redis answers, but refuses writes, scripts or the channel."""
    backplane: Literal["live", "deaf"]
    """Whether this process receives every invalidation ("live"), or is disconnected from the channel ("deaf")."""
    recovery_queue: int
    """The number of pending invalidations."""
    reason: str | None = None
    """The error message with which Redis refuses."""


class CacheManager(ABC):
    """Creates the caches; an async context manager that starts and keeps working without Redis."""

    @overload
    def cache(self, name: str, type_: type[V]) -> Cache[V]: ...
    @overload
    def cache(self, name: str, type_: object) -> Cache[Any]: ...
    @abstractmethod
    def cache(self, name: str, type_: Any) -> Cache[Any]:
        """Return the cache of this name; the first call creates it.

        For a type that is not a class, annotate the variable:
        `users: Cache[User | None] = manager.cache("users", User | None)`.

        Raises `UnknownCache` for a name without a policy, `ValueError` if the cache exists with another type, and
        `TypeError` for a type that cannot be encoded.
        """

    @abstractmethod
    def health(self) -> CacheHealth:
        """Return the state towards Redis as this process knows it, without a request."""

    @abstractmethod
    def expiring_set(self, name: str, *, source: Source | None = None) -> ExpiringSet:
        """Return the set of this name; the first call creates it. Names follow the rules of `CacheSettings.prefix`.

        With a `source` the set is rebuilt from it when this process starts and whenever Redis may have lost members,
        as after it restarted empty; it is `live` only after that. Raises `ValueError` for an invalid name, and if the
        set exists with another source.
        """

    @abstractmethod
    async def ping(self) -> float:
        """Return the seconds that Redis took to answer; raises `CacheUnavailable`.

        Afterwards `health()` says whether Redis accepts writes.
        """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start to receive invalidations."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop to receive invalidations and close all connections."""
