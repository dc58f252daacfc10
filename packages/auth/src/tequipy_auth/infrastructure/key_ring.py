"""The signing keys as each process holds them: loaded at first use and renewed before they are old."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from tequipy_auth.domain.exceptions import KeyUnusable
from tequipy_auth.infrastructure.keys import KeySet, PublicKey
from tequipy_platform import Unavailable

UNKNOWN_KEY_RELOAD_SECONDS: Final = 10.0
"""Whoever sends tokens with invented key ids causes one load in this time, in each process."""

LOAD_SECONDS: Final = 5.0
"""How long a caller without keys waits for a store that hangs; the load itself goes on for those who come later."""

RENEWAL_TIMEOUT: Final = 0.25
"""Seconds that callers wait for the renewal of keys that are old but there."""

_logger = logging.getLogger(__name__)


class KeyRing:
    """The keys of this process; `max_age` in seconds bounds how long a rotation elsewhere stays unnoticed.

    Half that age starts a renewal that nobody waits for. While the store is away, what was loaded goes on working, and
    all callers share one load. A context manager that ends a load still under way.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[KeySet]],
        *,
        max_age: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._max_age = max_age
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._loaded_at = self._asked_at = self._unknown_at = -float("inf")
        self._loading: asyncio.Task[KeySet] | None = None
        self._unusable: KeyUnusable | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading}, timeout=RENEWAL_TIMEOUT)

    async def keys(self) -> KeySet:
        """Return the keys, no older than `max_age` unless the store is away; raises what the first load raises."""
        if self._keys is None:
            return await self.reload()
        self._start_renewal_if_due()
        now = self._monotonic()
        if self._loading is not None and now - self._loaded_at >= self._max_age:
            # Of a hanging store only the first callers feel anything.
            await asyncio.wait({self._loading}, timeout=max(0.0, self._asked_at + RENEWAL_TIMEOUT - now))
        return self._keys

    async def check(self) -> None:
        """Raise `KeyUnusable` when the active key cannot be read as the store has it now, though an older one is held.

        Raises what the first load raises, too. It is noticed with the next renewal.
        """
        await self.keys()
        if self._unusable is not None:
            raise KeyUnusable(self._unusable.reason, setting=self._unusable.setting)

    async def find(self, kid: str) -> PublicKey | None:
        """Return a key by its id; None when it is unknown even to the store, asked at most once in 10 s."""
        published = (await self.keys()).published
        now = self._monotonic()
        if kid not in published and now - self._unknown_at >= UNKNOWN_KEY_RELOAD_SECONDS:
            self._unknown_at = now  # before the answer: a store that fails is not asked more often
            published = (await self.reload()).published
        return published.get(kid)

    def holds(self, kid: str) -> bool:
        """Tell whether a key that was found before is still published, as far as this process knows."""
        if self._keys is None:
            return False
        self._start_renewal_if_due()
        return kid in self._keys.published

    async def reload(self) -> KeySet:
        """Return the keys as the store has them now; callers that come meanwhile share the load.

        Raises what the load raises, and `Unavailable` when that takes too long.
        """
        loading = self._shared_load()
        await asyncio.wait({loading}, timeout=LOAD_SECONDS)  # a caller that is cancelled leaves the load to the others
        if not loading.done():
            raise Unavailable("The signing keys cannot be loaded; try again.", retry_after=LOAD_SECONDS)
        return loading.result()

    def _start_renewal_if_due(self) -> None:
        half = self._max_age / 2
        now = self._monotonic()
        # After a failure too: one that is away is asked as often as one that answers.
        if now - self._loaded_at >= half and now - self._asked_at >= min(half, UNKNOWN_KEY_RELOAD_SECONDS):
            self._shared_load()

    def _shared_load(self) -> asyncio.Task[KeySet]:
        if self._loading is None:
            self._asked_at = self._monotonic()
            self._loading = asyncio.create_task(self._loaded())
            self._loading.add_done_callback(self._finish)
        return self._loading

    async def _loaded(self) -> KeySet:
        asked_at = self._asked_at
        self._keys = await self._load()
        self._loaded_at = asked_at  # what was changed while they were read may be missing
        return self._keys

    def _finish(self, loading: "asyncio.Task[KeySet]") -> None:
        self._loading = None
        # The error is read here too, for perhaps nobody waits: the keys that are held go on working.
        error = None if loading.cancelled() else loading.exception()
        if isinstance(error, KeyUnusable):
            if self._unusable is None or self._unusable.reason != error.reason:  # once, however often it is tried
                _logger.error("signing_keys_refused", extra={"error": str(error)})
            self._unusable = error
        elif error is not None:
            _logger.warning("signing_keys_load_failed", extra={"error": type(error).__name__})
        elif not loading.cancelled():
            self._unusable = None
