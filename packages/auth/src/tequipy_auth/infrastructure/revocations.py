"""Revoked ids in the memory of every process, distributed through Redis and loaded from the database."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from tequipy_auth.domain.entities import KeyState
from tequipy_auth.domain.ports import Revocations
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.revocations import revoked_key, revoked_session, superseded_version
from tequipy_caching import ExpiringSet
from tequipy_platform import Clock


class SharedRevocations(Revocations):
    """Shares revoked ids between processes in an expiring set, each for the maximum lifetime of an access token."""

    def __init__(self, members: ExpiringSet, *, ttl: timedelta) -> None:
        self._members = members
        self._ttl = ttl.total_seconds()

    async def add(self, *revoked_ids: str) -> None:
        """Add ids in every process; if Redis is unavailable, they are sent when it is back."""
        if revoked_ids:
            await self._members.add(*revoked_ids, ttl=self._ttl)

    async def contains_any(self, ids: Collection[str]) -> bool:
        """Check the memory of this process while the set is up to date, and Redis otherwise, in one request.

        If Redis is unavailable too, the last known state decides, and the database is read once a second; if that is
        unavailable as well, a token ends at the latest with its own expiry.
        """
        return await self._members.contains_any(ids)


class StoredRevocations:
    """Loads revoked ids from the database, for a process that starts and for a Redis that lost its data."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork], *, ttl: timedelta, clock: Clock) -> None:
        self._unit_of_work = unit_of_work
        self._ttl = ttl
        self._clock = clock

    async def load(self) -> Mapping[str, float]:
        """Return every relevant revoked id with its remaining seconds."""
        since = self._clock.now() - self._ttl
        async with self._unit_of_work() as work:
            ended: dict[str, datetime] = {
                revoked_session(session_id): at for session_id, at in (await work.sessions.revoked_since(since)).items()
            }
            for user_id, (version, at) in (await work.users.superseded_since(since)).items():
                # All earlier versions are included, because the version may have changed several times in this period.
                ended |= {superseded_version(user_id, earlier): at for earlier in range(1, version)}
            for key in await work.signing_keys.all():
                if key.state is KeyState.REVOKED and key.state_changed_at > since:
                    ended[revoked_key(key.kid)] = key.state_changed_at
        # A revocation is stored for `ttl` from `at`; `at + ttl - now` is `at - since`.
        return {member: (at - since).total_seconds() for member, at in ended.items()}
