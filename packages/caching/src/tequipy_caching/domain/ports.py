"""The interface of a cache and of the manager that names them."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Literal, ParamSpec, Self, TypeVar, overload

from tequipy_caching.domain.cached import CachedFunction
from tequipy_caching.domain.keys import Key

P = ParamSpec("P")
V = TypeVar("V")
D = TypeVar("D")


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"

    def __bool__(self) -> Literal[False]:
        return False


MISSING: Final = Missing.MISSING
"""What `peek` gives for a key that is not there: None and every other value may be a cached one."""


class Cache(ABC, Generic[V]):
    """A named cache of values of one type. Within a process values are shared by reference: keep frozen ones.

    Every method raises `TypeError` for a key that is none; `ttl` is in seconds, None means the policy's, and 0 or less
    raises `ValueError`.
    """

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    @abstractmethod
    async def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key, or the default."""

    @abstractmethod
    async def get_or_set(self, key: Key, factory: Callable[[], Awaitable[V]], ttl: float | None = None) -> V:
        """Return the value of a key, loading it when it is not there: one load for all who wait for it.

        What the factory raises reaches all who wait and is not kept. Raises `LoadTimeout` when it takes longer than
        `hard_timeout`, `RecursiveLoad` when it asks for its own key, `TypeError` for a value that cannot be encoded.
        """

    @abstractmethod
    async def set(self, key: Key, value: V, ttl: float | None = None) -> None:
        """Write a value through to Redis and this process; every other process drops its copy.

        Raises `TypeError` for a value that cannot be encoded.
        """

    @abstractmethod
    async def delete(self, *keys: Key) -> None:
        """Remove keys everywhere; a load that began before never brings the old value back."""

    @abstractmethod
    def peek(self, key: Key) -> V | Missing:
        """Return what this process itself holds, without I/O; `MISSING` when it holds nothing that it may trust."""

    def cached(self, template: str) -> Callable[[Callable[P, Awaitable[V]]], CachedFunction[P, V]]:
        """Return a decorator that caches an async function by the arguments that the template names.

        `"user:{user_id}"` names the parameter `user_id`; raises `ValueError` for a name that is no parameter. For a
        method decorate the bound one: `self.user = users.cached("user:{user_id}")(self._load_user)`.
        """
        return lambda function: CachedFunction(self, template, function)


class CacheManager(ABC):
    """Names the caches; an async context manager that starts, and goes on, without Redis."""

    @abstractmethod
    def cache(self, name: str, type_: type[V]) -> Cache[V]:
        """Return the cache of a name, always the same one.

        Raises `UnknownCache` for a name without a policy, `ValueError` for one that has another type already and
        `TypeError` for a type that cannot be encoded.
        """

    @abstractmethod
    async def ping(self) -> float:
        """Return the seconds that Redis took to answer; raises `CacheUnavailable`."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start listening for invalidations."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening and close all connections."""
