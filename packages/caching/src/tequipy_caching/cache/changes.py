"""Changes of the shared tier: applied at once, or queued until Redis is reachable."""

import asyncio
from collections.abc import Awaitable, Hashable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar, cast

from tequipy_caching._exceptions import CacheUnavailable
from tequipy_caching.cache.keys import Key
from tequipy_caching.cache.recovery import Recoverable, RecoveryQueue
from tequipy_caching.cache.tiers import SharedTier

V = TypeVar("V")

Kind = Literal["delete", "expire"]
"""Whether the stale value may be served afterwards: never ("delete"), or according to `fail_safe` ("expire")."""
Scope = Literal["key", "tag", "everything"]
"""The extent of an entry of the queue. The key of an entry is its extent with the key or the id of the tag."""
_EVERYTHING: Final[tuple[Scope, str]] = ("everything", "")
_BATCH_SIZE: Final = 500
"""How many keys one script changes, so that replaying a long queue does not block Redis."""


class Changes(Recoverable[Kind], Generic[V]):
    """The changes of one cache; while one is pending, the values of its keys in the shared tier are not used."""

    def __init__(self, name: str, shared: SharedTier[V], recovery: RecoveryQueue, *, strict: bool) -> None:
        self._topic = f"cache:{name}"
        self._shared = shared
        self._recovery = recovery
        self._strict = strict
        recovery.register(self._topic, self)

    async def apply(
        self,
        change: Awaitable[None],
        *,
        keys: Iterable[Key] = (),
        kind: Kind = "delete",
        tags: Iterable[str] = (),
        everything: bool = False,
    ) -> None:
        """Await `change`; if it fails, or is cancelled so that its outcome is unknown, queue it.

        The other arguments describe the same change for the queue.
        """
        try:
            await change
        except (CacheUnavailable, asyncio.CancelledError) as error:
            self.enqueue(keys=keys, kind=kind, tags=tags, everything=everything)
            if self._strict or isinstance(error, asyncio.CancelledError):
                raise

    def enqueue(
        self, *, keys: Iterable[Key] = (), kind: Kind = "delete", tags: Iterable[str] = (), everything: bool = False
    ) -> None:
        """Queue a change, of this process or another, that has not reached the shared tier."""
        for key in keys:
            self._recovery.add(self._topic, ("key", key), kind)
        for tag in tags:
            self._recovery.add(self._topic, ("tag", tag), kind)
        if everything:
            self._recovery.add(self._topic, _EVERYTHING, kind)

    @property
    def any_pending(self) -> bool:
        """Whether invalidations are pending in this process, or may be in another one."""
        return len(self._recovery) > 0 or self._recovery.distrusts_all

    def is_pending(self, key: Key, tags: Iterable[str] = ()) -> bool:
        """Return whether an invalidation of the key or a tag is pending, so the shared tier may hold an old value."""
        return (
            self._recovery.distrusts_all
            or self._recovery.holds(self._topic, ("key", key))
            or self._recovery.holds(self._topic, _EVERYTHING)
            or any(self._recovery.holds(self._topic, ("tag", tag)) for tag in tags)
        )

    def merge(self, old: Kind, new: Kind) -> Kind:
        """Return the stricter of two changes."""
        return "delete" if "delete" in (old, new) else "expire"

    def overflow(self) -> Mapping[Hashable, Kind]:
        """Return the change that replaces all others without losing a delete: clear the cache."""
        return {_EVERYTHING: "delete"}

    async def replay(self, entries: Mapping[Hashable, Kind]) -> None:
        """Apply queued changes."""
        if _EVERYTHING in entries:
            await self._shared.clear()
        if tags := _subjects(entries, "tag", "delete"):
            await self._shared.remove_tags(tags)
        for change, kind in ((self._shared.remove, "delete"), (self._shared.expire, "expire")):
            keys = _subjects(entries, "key", kind)
            for start in range(0, len(keys), _BATCH_SIZE):
                await change(keys[start : start + _BATCH_SIZE])


def _subjects(entries: Mapping[Hashable, Kind], scope: Scope, kind: str) -> list[Any]:
    """Return the keys, or the ids of the tags, of the entries with this scope and kind."""
    pairs = cast("Mapping[tuple[Scope, Any], Kind]", entries)
    return [subject for (its_scope, subject), its_kind in pairs.items() if (its_scope, its_kind) == (scope, kind)]
