"""Fences: what was read before an invalidation is not kept after it."""

from types import TracebackType
from typing import Self

from tequipy_caching.domain.keys import Key


class Fence:
    """Held while somebody is about to keep a value in memory; `whole` until that value may have become an old one."""

    __slots__ = ("_key", "_open", "stands", "whole")

    def __init__(self, open_fences: dict[Key, set["Fence"]], key: Key) -> None:
        self.whole = True
        self.stands = True
        """Whether a value from before may still stand in for one that cannot be loaded."""
        self._open = open_fences
        self._key = key

    def __enter__(self) -> Self:
        self._open.setdefault(self._key, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fences = self._open[self._key]
        fences.remove(self)
        if not fences:
            del self._open[self._key]


class Fences:
    """The fences of one cache in this process, by key."""

    def __init__(self) -> None:
        self._open: dict[Key, set[Fence]] = {}

    def open(self, key: Key) -> Fence:
        """Return a fence to be held, by `with`, from before a value is read until it is kept."""
        return Fence(self._open, key)

    def held(self, key: Key) -> bool:
        """Tell whether somebody holds a fence of this key, whole or not."""
        return key in self._open

    def breach(self, key: Key, *, stands: bool = False) -> None:
        """Take the permission to keep a value from all who hold a fence now."""
        for fence in self._open.get(key, ()):
            fence.whole = False
            fence.stands &= stands

    def breach_all(self) -> None:
        """Take every permission."""
        for key in self._open:
            self.breach(key)
