"""Fences: what was read before an invalidation is not kept after it."""

from types import TracebackType
from typing import Self


class Fence:
    """Held while somebody is about to keep a value in memory; `whole` until that value may have become an old one."""

    __slots__ = ("_name", "_open", "whole")

    def __init__(self, open_fences: dict[str, set["Fence"]], name: str) -> None:
        self.whole = True
        self._open = open_fences
        self._name = name

    def __enter__(self) -> Self:
        self._open.setdefault(self._name, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fences = self._open[self._name]
        fences.remove(self)
        if not fences:
            del self._open[self._name]


class Fences:
    """The fences of one cache in this process, by name."""

    def __init__(self) -> None:
        self._open: dict[str, set[Fence]] = {}

    def open(self, name: str) -> Fence:
        """Return a fence to be held, by `with`, from before a value is read until it is kept."""
        return Fence(self._open, name)

    def held(self, name: str) -> bool:
        """Tell whether somebody holds a fence of this name, whole or not."""
        return name in self._open

    def breach(self, name: str) -> None:
        """Take the permission to keep a value from all who hold a fence now."""
        for fence in self._open.get(name, ()):
            fence.whole = False

    def breach_all(self) -> None:
        """Take every permission."""
        for name in self._open:
            self.breach(name)
