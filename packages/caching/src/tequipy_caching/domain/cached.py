"""The decorator that caches the results of a function by its arguments."""

import inspect
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from string import Formatter
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from tequipy_caching.domain.keys import Key

if TYPE_CHECKING:  # `ports` imports this module
    from tequipy_caching.domain.ports import Cache

P = ParamSpec("P")
V = TypeVar("V")


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
        self._places = [positional.index(name) for name in self._fields if name in positional]
        self._simple = len(parameters) == len(positional)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of these arguments: a tuple of the template and each argument that it names.

        Different arguments always give different keys. Raises `TypeError` for arguments that the function does not
        accept.
        """
        if self._simple and not kwargs and len(args) == self._arity:
            values: tuple[Any, ...] = tuple([args[place] for place in self._places])
        else:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = tuple([bound.arguments[name] for name in self._fields])
        return (self._template, *values)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Return the cached result, or call the function and store its result."""
        return await self._cache.get_or_set(self.key(*args, **kwargs), lambda: self._function(*args, **kwargs))

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Remove the result of these arguments in all processes."""
        await self._cache.delete(self.key(*args, **kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Remove the result of these arguments in all processes, and return a new one."""
        await self.invalidate(*args, **kwargs)
        return await self(*args, **kwargs)
