"""The interface of a cache, and the decorator that caches the results of a function."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial, update_wrapper
from string import Formatter
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar, overload

from tequipy_caching.cache.keys import Key, canonical

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


class CachedFunction(Generic[P, V]):
    """An async function with cached results; created by `Cache.cached`."""

    def __init__(self, cache: "Cache[V]", template: str, function: Callable[P, Awaitable[V]]) -> None:
        update_wrapper(self, function)
        self._cache = cache
        self._template = template
        self._function = function
        self._signature = inspect.signature(function)
        self._fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        parameters = list(self._signature.parameters.values())
        unknown = sorted(set(self._fields) - {parameter.name for parameter in parameters})
        if unknown:
            raise ValueError(f"{template!r} names {', '.join(unknown)}: no parameter of {function!r}")
        # The positions of the fields: if all arguments are positional, using these is far cheaper than binding them.
        positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._arity = len(positional)
        self._positions = [positional.index(name) for name in self._fields if name in positional]
        self._simple = len(parameters) == len(positional)
        self._all_in_order = self._simple and self._positions == list(range(self._arity))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of these arguments: a tuple of the template and each argument that it names.

        Different arguments always give different keys. Raises `TypeError` for arguments that the function does not
        accept.
        """
        if self._all_in_order and not kwargs and len(args) == self._arity:
            return (self._template, *args)  # type: ignore[arg-type]  # -- the cache refuses other types
        if self._simple and not kwargs and len(args) == self._arity:
            values: tuple[Any, ...] = tuple([args[position] for position in self._positions])
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = tuple([bound.arguments[name] for name in self._fields])
        return (self._template, *values)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Return the cached result, or call the function and store its result."""
        if self._all_in_order and not kwargs and len(args) == self._arity:  # as in `key`: saves a call for most calls
            key = canonical((self._template, *args))  # type: ignore[arg-type]  # -- `canonical` refuses other types
        else:
            key = canonical(self.key(*args, **kwargs))
        value = self._cache._hit(key)  # noqa: SLF001 -- of this module; saves a coroutine for most calls
        if value is not MISSING:
            return value
        return await self._cache.get_or_set(key, partial(self._function, *args, **kwargs))

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Remove the result of these arguments in all processes."""
        await self._cache.delete(self.key(*args, **kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Remove the result of these arguments in all processes, and return a new one."""
        await self.invalidate(*args, **kwargs)
        return await self(*args, **kwargs)


class Cache(ABC, Generic[V]):
    """A named cache of values of one type. A process shares values by reference, so they should be immutable.

    Every method raises `TypeError` for a key that is not a `Key`. `ttl` is in seconds; None means the policy's ttl, and
    0 or less raises `ValueError`. `tags` are labels by which values are removed together; a value has at most 255, more
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

    def _hit(self, key: Key) -> V | Missing:  # noqa: ARG002 -- of implementations without such a path
        """Return and count the value of a canonical key if it needs no further checks; `MISSING` decides nothing."""
        return MISSING

    def cached(self, template: str) -> Callable[[Callable[P, Awaitable[V]]], CachedFunction[P, V]]:
        """Return a decorator that caches an async function by the arguments that the template names.

        `"user:{user_id}"` names the parameter `user_id`; raises `ValueError` if the function has no such parameter.
        Decorate bound methods: `self.user = users.cached("user:{user_id}")(self._load_user)`.
        """
        return lambda function: CachedFunction(self, template, function)
