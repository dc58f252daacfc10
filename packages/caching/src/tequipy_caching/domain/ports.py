"""The interfaces of a cache and of the manager that creates caches."""

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
"""The result of `peek` for a key that is absent; None would be ambiguous, because it can be a cached value."""


class Cache(ABC, Generic[V]):
    """A named cache of values of one type. A process shares values by reference, so they should be immutable.

    Every method raises `TypeError` for a key of another type. `ttl` is in seconds; None means the policy's ttl, and 0
    or less raises `ValueError`. `tags` are labels by which values are removed together; a value has at most 255, more
    raise `ValueError`.
    """

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    @abstractmethod
    async def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key, or the default if it has none."""

    @abstractmethod
    async def get_or_set(
        self, key: Key, factory: Callable[[], Awaitable[V]], ttl: float | None = None, tags: Collection[str] = ()
    ) -> V:
        """Return the cached value, or call `factory` and store its result; concurrent callers share one call.

        An exception of the factory is raised to all callers that wait, and is cached only if its type is in the
        policy's `negative`; with `fail_safe` they get the stale value instead. Raises `LoadTimeout` if the factory
        takes longer than `hard_timeout`, `RecursiveLoad` if it asks for its own key, and `TypeError` for a value that
        cannot be encoded.
        """

    @abstractmethod
    async def get_many(self, keys: Iterable[Key]) -> dict[Key, V]:
        """Return the values of the keys that have one, in one round trip."""

    @abstractmethod
    async def get_or_set_many(
        self,
        keys: Iterable[Key],
        factory: Callable[[Sequence[Key]], Awaitable[Mapping[Key, V]]],
        ttl: float | None = None,
        tags: Collection[str] = (),
    ) -> dict[Key, V]:
        """Return the values of keys: one round trip to look them up, one load of all missing ones, one to store.

        Keys that the factory omits, and keys with a cached exception, are absent from the result. An exception of the
        factory is raised, unless with `fail_safe` every missing key has a stale value. If one key has none, the
        exception is raised, because a result without that key would mean that it has no value; the stale values of
        the other keys count as fresh for `fail_safe_throttle` seconds, so the next call loads that key alone.
        """

    @abstractmethod
    async def set(self, key: Key, value: V, ttl: float | None = None, tags: Collection[str] = ()) -> None:
        """Write a value to Redis and to the memory of this process; all other processes drop their copies.

        Raises `TypeError` for a value that cannot be encoded.
        """

    @abstractmethod
    async def delete(self, *keys: Key) -> None:
        """Remove keys in all processes; a load that began earlier cannot store the old value."""

    @abstractmethod
    async def expire(self, *keys: Key) -> None:
        """End the ttl of keys in all processes; unlike after `delete`, `fail_safe` may serve the stale values."""

    @abstractmethod
    async def delete_by_tag(self, *tags: str) -> None:
        """Remove all values of this cache that were stored with one of the tags, at constant cost."""

    @abstractmethod
    async def clear(self) -> None:
        """Remove all values of this cache at constant cost."""

    @abstractmethod
    def peek(self, key: Key) -> V | Missing:
        """Return the value in the memory of this process, without I/O; `MISSING` if there is no current one."""

    def cached(self, template: str) -> Callable[[Callable[P, Awaitable[V]]], CachedFunction[P, V]]:
        """Return a decorator that caches an async function by the arguments that the template names.

        `"user:{user_id}"` names the parameter `user_id`; raises `ValueError` if the function has no such parameter.
        Decorate bound methods: `self.user = users.cached("user:{user_id}")(self._load_user)`.
        """
        return lambda function: CachedFunction(self, template, function)


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
