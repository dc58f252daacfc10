"""Fences: what was read before an invalidation is not kept after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tequipy_caching.domain.keys import Key


class Fence:
    """Held while somebody is about to keep a value in memory; `whole` until that value may have become an old one."""

    __slots__ = ("stands", "whole")

    def __init__(self) -> None:
        self.whole = True
        self.stands = True
        """Whether a value from before may still stand in for one that cannot be loaded."""


class Fences:
    """The fences of one cache in this process, by key."""

    def __init__(self) -> None:
        self._open: dict[Key, set[Fence]] = {}

    @contextmanager
    def hold(self, keys: Sequence[Key]) -> Iterator[dict[Key, Fence]]:
        """Hold a fence for each key, from before its value is read until it is kept."""
        held = {key: Fence() for key in keys}
        for key, fence in held.items():
            self._open.setdefault(key, set()).add(fence)
        try:
            yield held
        finally:
            for key, fence in held.items():
                fences = self._open[key]
                fences.remove(fence)
                if not fences:
                    del self._open[key]

    def breach(self, key: Key, *, stands: bool = False) -> None:
        """Take the permission to keep a value from all who hold a fence now."""
        for fence in self._open.get(key, ()):
            fence.whole = False
            fence.stands &= stands

    def breach_all(self) -> None:
        """Take every permission."""
        for key in self._open:
            self.breach(key)
