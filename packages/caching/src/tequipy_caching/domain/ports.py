"""The interface of a cache and of the manager that names them."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Literal, ParamSpec, Self, TypeVar, overload

from tequipy_caching.domain.cached import CachedFunction
from tequipy_caching.domain.expiring_set import ExpiringSet, Source
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
    raises `ValueError`; `tags` name values that are to be removed together: at most 255 for one value, or `ValueError`.
    """

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    @abstractmethod
    async def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key, or the default."""

    @abstractmethod
    async def get_or_set(
        self, key: Key, factory: Callable[[], Awaitable[V]], ttl: float | None = None, tags: Collection[str] = ()
    ) -> V:
        """Return the value of a key, loading it when it is not there: one load for all who wait for it.

        What the factory raises reaches all who wait and is not kept, unless its type is in the policy's `negative`;
        with `fail_safe` an older value stands in for it. Raises `LoadTimeout` when it takes longer than `hard_timeout`,
        `RecursiveLoad` when it asks for its own key, `TypeError` for a value that cannot be encoded.
        """

    @abstractmethod
    async def get_many(self, keys: Iterable[Key]) -> dict[Key, V]:
        """Return the values of those keys that have one, in one round trip."""

    @abstractmethod
    async def get_or_set_many(
        self,
        keys: Iterable[Key],
        factory: Callable[[Sequence[Key]], Awaitable[Mapping[Key, V]]],
        ttl: float | None = None,
        tags: Collection[str] = (),
    ) -> dict[Key, V]:
        """Return the values of keys: one round trip to look, one load for all that are missing, one to store.

        Keys that the factory leaves out are absent from the result; so are those for which an exception is kept. What
        the factory raises reaches the caller, unless with `fail_safe` older values stand in for all missing keys. When
        one has none it is raised, for a result without that key would say that there is no such value; the others
        stand in from then on, so that the next call asks for that key alone.
        """

    @abstractmethod
    async def set(self, key: Key, value: V, ttl: float | None = None, tags: Collection[str] = ()) -> None:
        """Write a value through to Redis and this process; every other process drops its copy.

        Raises `TypeError` for a value that cannot be encoded.
        """

    @abstractmethod
    async def delete(self, *keys: Key) -> None:
        """Remove keys everywhere; a load that began before never brings the old value back."""

    @abstractmethod
    async def expire(self, *keys: Key) -> None:
        """End the life of keys everywhere, as `delete`; but with `fail_safe` the old values may still stand in."""

    @abstractmethod
    async def delete_by_tag(self, *tags: str) -> None:
        """Remove all values of this cache that were stored with one of the tags, however many, in one step."""

    @abstractmethod
    async def clear(self) -> None:
        """Remove all values of this cache, however many, in one step."""

    @abstractmethod
    def peek(self, key: Key) -> V | Missing:
        """Return what this process itself holds, without I/O; `MISSING` when it holds nothing that it may trust."""

    def cached(self, template: str) -> Callable[[Callable[P, Awaitable[V]]], CachedFunction[P, V]]:
        """Return a decorator that caches an async function by the arguments that the template names.

        `"user:{user_id}"` names the parameter `user_id`; raises `ValueError` for a name that is no parameter. For a
        method decorate the bound one: `self.user = users.cached("user:{user_id}")(self._load_user)`.
        """
        return lambda function: CachedFunction(self, template, function)


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """How the caches of a process stand with Redis."""

    l2: Literal["up", "open", "refusing", "down"]
    """up: Redis is asked; open: a fault has been met and Redis is not asked; down: a probe has failed since, too;
    refusing: Redis answers, and refuses writes, or scripts, or the channel."""
    backplane: Literal["live", "deaf"]
    """Whether every invalidation is heard, so that memory is trusted."""
    recovery_queue: int
    """How many changes wait to be replayed."""
    reason: str | None = None
    """Why Redis refuses, in its own words."""


class CacheManager(ABC):
    """Names the caches; an async context manager that starts, and goes on, without Redis."""

    @overload
    def cache(self, name: str, type_: type[V]) -> Cache[V]: ...
    @overload
    def cache(self, name: str, type_: object) -> Cache[Any]: ...
    @abstractmethod
    def cache(self, name: str, type_: Any) -> Cache[Any]:
        """Return the cache of a name, always the same one.

        What is no class needs its type said: `users: Cache[User | None] = manager.cache("users", User | None)`.

        Raises `UnknownCache` for a name without a policy, `ValueError` for one that has another type already and
        `TypeError` for a type that cannot be encoded.
        """

    @abstractmethod
    def health(self) -> CacheHealth:
        """Return how this process stands with Redis, without asking it."""

    @abstractmethod
    def expiring_set(self, name: str, *, source: Source | None = None) -> ExpiringSet:
        """Return the set of a name, always the same one; names are those of `CacheSettings.prefix`.

        With a `source` the set is rebuilt from it when this process starts and whenever Redis may have lost members
        (it came back empty), and is `live` only then. Raises `ValueError` for a name that is none or has another
        source already.
        """

    @abstractmethod
    async def ping(self) -> float:
        """Return the seconds that Redis took to answer; raises `CacheUnavailable`.

        Whether it takes writes is in `health()` then.
        """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start listening for invalidations."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening and close all connections."""
