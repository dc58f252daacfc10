"""What is believed no more, in the memory of every process: spread by Redis, rebuilt from the database."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from tequipy_auth.domain.entities import KeyState
from tequipy_auth.domain.ports import Revocations
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.revocations import revoked_key, revoked_session, superseded_version
from tequipy_caching import ExpiringSet
from tequipy_platform import Clock


class SharedRevocations(Revocations):
    """Revocations in a set that all processes share, each member for as long as an access token could rely on it."""

    def __init__(self, members: ExpiringSet, *, ttl: timedelta) -> None:
        self._members = members
        self._ttl = ttl.total_seconds()

    async def add(self, *members: str) -> None:
        """Add them here and everywhere; what cannot reach Redis now is sent when it is back."""
        if members:
            await self._members.add(*members, ttl=self._ttl)

    async def contains_any(self, members: Iterable[str]) -> bool:
        """Look into this process's memory while it hears of all; ask Redis otherwise.

        With Redis gone too the answer is what this process knew last: a token then ends at the latest by itself.
        """
        if self._members.live:
            return any(member in self._members for member in members)
        for member in members:
            if await self._members.contains(member):
                return True
        return False


class StoredRevocations:
    """The same as the database knows it, for a process that starts and for a Redis that came back empty."""

    def __init__(self, unit_of_work: Callable[[], AuthUnitOfWork], *, ttl: timedelta, clock: Clock) -> None:
        self._unit_of_work = unit_of_work
        self._ttl = ttl
        self._clock = clock

    async def load(self) -> Mapping[str, float]:
        """Return every member that may still matter, with the seconds it has left."""
        since = self._clock.now() - self._ttl
        async with self._unit_of_work() as work:
            ended: dict[str, datetime] = {
                revoked_session(session_id): at for session_id, at in (await work.sessions.revoked_since(since)).items()
            }
            for user_id, (version, at) in (await work.users.superseded_since(since)).items():
                # All that went before, for it may have changed more than once in this time.
                ended |= {superseded_version(user_id, earlier): at for earlier in range(1, version)}
            for key in await work.signing_keys.all():
                if key.state is KeyState.REVOKED and key.state_changed_at > since:
                    ended[revoked_key(key.kid)] = key.state_changed_at
        return {member: (at - since).total_seconds() for member, at in ended.items()}
