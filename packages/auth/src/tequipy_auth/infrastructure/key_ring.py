"""The signing keys in the memory of a process, loaded at first use and renewed before they become too old."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from tequipy_auth.domain.exceptions import KeyUnusable
from tequipy_auth.infrastructure.keys import KeySet, PublicKey
from tequipy_platform import Unavailable

RELOAD_INTERVAL: Final = 10.0
"""The minimum interval, in seconds, between reloads for unknown key ids and between retries of a failed renewal.

Without it, tokens with invented key ids could cause any number of reloads.
"""

LOAD_TIMEOUT: Final = 5.0
"""How long, in seconds, a caller without keys waits for a slow store; the load continues for later callers."""

RENEWAL_TIMEOUT: Final = 0.25
"""How long, in seconds, callers wait for the renewal of keys that are too old."""

logger = logging.getLogger(__name__)


class KeyRing:
    """Holds the signing keys of this process; they are renewed before they are `max_age` seconds old.

    At half that age a renewal starts in the background. While the store is unavailable, the loaded keys remain in use.
    All callers share one load. Leaving the context cancels a load in progress.
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
        self._loaded_at = self._load_started_at = self._unknown_key_reload_at = -float("inf")
        self._loading: asyncio.Task[KeySet] | None = None
        self._active_key_error: KeyUnusable | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading}, timeout=RENEWAL_TIMEOUT)

    async def keys(self) -> KeySet:
        """Return the keys; raises errors of the first load.

        They are older than `max_age` only while the store is unavailable.
        """
        if self._keys is None:
            return await self.reload()
        self._start_renewal_if_due()
        now = self._monotonic()
        if self._loading is not None and now - self._loaded_at >= self._max_age:
            # The wait is counted from the start of the load, so that a slow store delays only the first callers.
            await asyncio.wait({self._loading}, timeout=max(0.0, self._load_started_at + RENEWAL_TIMEOUT - now))
        return self._keys

    async def check(self) -> None:
        """Raise `KeyUnusable` if the latest renewal could not decrypt the active key, even if an older one is loaded.

        Also raises errors of the first load.
        """
        await self.keys()
        error = self._active_key_error
        if error is not None:
            raise KeyUnusable(error.reason, setting=error.setting, remedy=error.remedy, kid=error.kid)

    async def find(self, kid: str) -> PublicKey | None:
        """Return a key by its id, or None; an unknown id causes at most one reload in 10 s."""
        published = (await self.keys()).published
        now = self._monotonic()
        if kid not in published and now - self._unknown_key_reload_at >= RELOAD_INTERVAL:
            self._unknown_key_reload_at = now  # set before the load, so that failed loads are not repeated more often
            published = (await self.reload()).published
        return published.get(kid)

    def holds(self, kid: str) -> bool:
        """Return whether a key is still published, as far as this process knows."""
        if self._keys is None:
            return False
        if self._monotonic() - self._loaded_at >= self._max_age / 2:  # seldom; this runs for each request
            self._start_renewal_if_due()
        return kid in self._keys.published

    async def reload(self) -> KeySet:
        """Load the keys from the store; concurrent callers share one load.

        Raises errors of the load, and `Unavailable` when it takes too long.
        """
        loading = self._start_or_join_load()
        # Unlike `wait_for`, `wait` does not cancel the shared load when one caller is cancelled.
        await asyncio.wait({loading}, timeout=LOAD_TIMEOUT)
        if not loading.done():
            raise Unavailable("The signing keys cannot be loaded; try again.", retry_after=LOAD_TIMEOUT)
        return loading.result()

    def _start_renewal_if_due(self) -> None:
        half = self._max_age / 2
        now = self._monotonic()
        # A failed load is retried sooner than a successful one is renewed, but not with every request.
        if now - self._loaded_at >= half and now - self._load_started_at >= min(half, RELOAD_INTERVAL):
            self._start_or_join_load()

    def _start_or_join_load(self) -> asyncio.Task[KeySet]:
        if self._loading is None:
            self._load_started_at = self._monotonic()
            self._loading = asyncio.create_task(self._load_and_keep())
            self._loading.add_done_callback(self._finish)
        return self._loading

    async def _load_and_keep(self) -> KeySet:
        started_at = self._load_started_at
        self._keys = await self._load()
        self._loaded_at = started_at  # changes made during the load may be missing
        return self._keys

    def _finish(self, loading: "asyncio.Task[KeySet]") -> None:
        self._loading = None
        # The error is read here, because no caller may be waiting for it; the loaded keys remain in use.
        error = None if loading.cancelled() else loading.exception()
        if isinstance(error, KeyUnusable):
            previous, self._active_key_error = self._active_key_error, error
            if previous is None or previous.reason != error.reason:  # logged once, not at each retry
                logger.error("signing_keys_refused", extra={"error": str(error)})
        elif error is not None:
            logger.warning("signing_keys_load_failed", extra={"error": type(error).__name__})
        elif not loading.cancelled():
            self._active_key_error = None
