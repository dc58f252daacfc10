"""The repositories in memory, and the unit of work around them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, AuditRecord
from tequipy_auth.domain.entities import (
    OneTimeToken,
    RefreshToken,
    Registration,
    Session,
    User,
)
from tequipy_auth.domain.exceptions import EmailTaken
from tequipy_auth.domain.lockout import Counter, Key
from tequipy_auth.domain.repositories import (
    AuditLog,
    AuditTrail,
    AuthUnitOfWork,
    LoginAttempts,
    OneTimeTokens,
    RefreshTokens,
    Registrations,
    Sessions,
    Users,
)
from tequipy_auth.domain.value_objects import PasswordHash, Purpose
from tequipy_auth.testing.signing_keys import MemorySigningKeys
from tequipy_observability import current_context
from tequipy_platform import Clock, IdSource
from tequipy_platform.testing import CountingIds, MemoryUnitOfWork

K = TypeVar("K")
V = TypeVar("V")


def _purge(rows: dict[K, V], over: Callable[[V], bool], limit: int) -> int:
    found = [key for key, row in rows.items() if over(row)][:limit]
    for key in found:
        del rows[key]
    return len(found)


class MemoryRegistrations(Registrations):
    """Registrations by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Registration] = {}

    async def add(self, registration: Registration) -> None:
        """Keep a registration."""
        self.rows[registration.id] = registration

    async def get(self, registration_id: UUID) -> Registration | None:
        """Return a registration."""
        return self.rows.get(registration_id)

    async def newest_of(self, canonical_email: str, *, at: datetime) -> Registration | None:
        """Return the latest registration of an address."""
        rows = [row for row in self.rows.values() if row.email.canonical == canonical_email and row.expires_at > at]
        return max(rows, key=lambda row: (row.created_at, row.id), default=None)

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget expired registrations."""
        return _purge(self.rows, lambda row: row.expires_at <= before, limit)

    async def delete_for(self, canonical_email: str) -> None:
        """Forget all registrations of an address."""
        for row in [row for row in self.rows.values() if row.email.canonical == canonical_email]:
            del self.rows[row.id]


class MemoryUsers(Users):
    """Accounts by id, and when their versions were counted up."""

    def __init__(self) -> None:
        self.rows: dict[UUID, User] = {}
        self.superseded_at: dict[UUID, datetime] = {}

    async def add(self, user: User) -> None:
        """Keep an account; raises `EmailTaken`."""
        if await self.by_email(user.email.canonical) is not None:
            raise EmailTaken
        self.rows[user.id] = user

    async def get(self, user_id: UUID) -> User | None:
        """Return an account."""
        return self.rows.get(user_id)

    async def by_email(self, canonical_email: str) -> User | None:
        """Return the account of an address."""
        return next((row for row in self.rows.values() if row.email.canonical == canonical_email), None)

    async def supersede(self, user_id: UUID, *, at: datetime) -> int | None:
        """Count the account's version up."""
        row = self.rows.get(user_id)
        if row is None:
            return None
        self.rows[user_id] = replace(row, version=row.version + 1)
        self.superseded_at[user_id] = at
        return row.version

    async def superseded_since(self, at: datetime) -> Mapping[UUID, tuple[int, datetime]]:
        """Return whose version was counted up after that moment."""
        return {
            user_id: (self.rows[user_id].version, changed_at)
            for user_id, changed_at in self.superseded_at.items()
            if changed_at > at
        }

    async def lock(self, user_id: UUID) -> User | None:
        """Return an account: blocks of a unit of work wait for each other anyway."""
        return self.rows.get(user_id)

    async def set_password(self, user_id: UUID, password: PasswordHash) -> None:
        """Replace the password's hash."""
        self._change(user_id, password=password)

    async def set_verified(self, user_id: UUID) -> None:
        """Record that the address is the account's owner's."""
        self._change(user_id, email_verified=True)

    async def set_name(self, user_id: UUID, name: str | None) -> User | None:
        """Replace the name."""
        self._change(user_id, name=name)
        return self.rows.get(user_id)

    def _change(self, user_id: UUID, **values: Any) -> None:  # noqa: ANN401 -- fields of any type
        if user_id in self.rows:
            self.rows[user_id] = replace(self.rows[user_id], **values)


class MemorySessions(Sessions):
    """Sessions by id, and why they ended."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Session] = {}
        self.reasons: dict[UUID, str] = {}

    async def add(self, session: Session) -> None:
        """Keep a session."""
        self.rows[session.id] = session

    async def get(self, session_id: UUID) -> Session | None:
        """Return a session."""
        return self.rows.get(session_id)

    async def touch(self, session_id: UUID, *, last_used_at: datetime, idle_expires_at: datetime) -> bool:
        """Record that the session was used."""
        row = self.rows.get(session_id)
        if row is None or row.revoked_at is not None:
            return False
        self.rows[session_id] = replace(row, last_used_at=last_used_at, idle_expires_at=idle_expires_at)
        return True

    async def reauthenticate(self, session_id: UUID, *, at: datetime) -> bool:
        """Record a new proof of identity."""
        row = self.rows.get(session_id)
        if row is None or row.revoked_at is not None:
            return False
        self.rows[session_id] = replace(row, auth_time=at)
        return True

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget ended sessions; their refresh tokens stay, unreachable."""
        return _purge(self.rows, lambda row: min(row.revoked_at or row.expires_at, row.expires_at) <= before, limit)

    async def revoke(self, session_id: UUID, *, at: datetime, reason: str) -> bool:
        """End the session."""
        row = self.rows.get(session_id)
        if row is None or row.revoked_at is not None:
            return False
        self.rows[session_id] = replace(row, revoked_at=at)
        self.reasons[session_id] = reason
        return True

    async def revoke_all(self, user_id: UUID, *, keep: UUID | None = None, at: datetime, reason: str) -> Sequence[UUID]:
        """End all sessions of an account but one."""
        theirs = [row.id for row in self.rows.values() if row.user_id == user_id and row.id != keep]
        return [session_id for session_id in theirs if await self.revoke(session_id, at=at, reason=reason)]

    async def live_of(self, user_id: UUID, *, at: datetime, beyond: int = 0) -> Sequence[Session]:
        """Return the live sessions of an account."""
        theirs = [row for row in self.rows.values() if row.user_id == user_id]
        live = [row for row in theirs if row.revoked_at is None and row.expires_at > at]
        return sorted(live, key=lambda row: (row.created_at, row.id), reverse=True)[beyond:]

    async def revoked_since(self, at: datetime) -> Mapping[UUID, datetime]:
        """Return what was revoked after that moment."""
        return {row.id: row.revoked_at for row in self.rows.values() if row.revoked_at and row.revoked_at > at}


class MemoryRefreshTokens(RefreshTokens):
    """Refresh tokens by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, RefreshToken] = {}

    async def add(self, token: RefreshToken) -> None:
        """Keep a token."""
        if token.parent_id is not None and await self.child_of(token.parent_id) is not None:
            raise ValueError("the parent has a child already")
        self.rows[token.id] = token

    async def get(self, token_id: UUID) -> RefreshToken | None:
        """Return a token."""
        return self.rows.get(token_id)

    async def child_of(self, token_id: UUID) -> RefreshToken | None:
        """Return the token that followed this one."""
        return next((row for row in self.rows.values() if row.parent_id == token_id), None)

    async def claim(self, token_id: UUID, *, at: datetime) -> bool:
        """Mark the token as used."""
        row = self.rows.get(token_id)
        if row is None or row.used_at is not None:
            return False
        self.rows[token_id] = replace(row, used_at=at)
        return True


class MemoryOneTimeTokens(OneTimeTokens):
    """The live one-time tokens by id."""

    def __init__(self) -> None:
        self.rows: dict[UUID, OneTimeToken] = {}

    async def add(self, token: OneTimeToken, *, keep: int) -> None:
        """Keep a token, and of its family the newest."""
        self.rows[token.id] = token
        newest_first = sorted(self._family(token), key=lambda row: (row.created_at, row.id), reverse=True)
        for row in newest_first[keep:]:
            del self.rows[row.id]

    async def consume(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Use a token and its family up."""
        subject_id = await self.peek(token_id, purpose, secret_hash, at=at)
        if subject_id is not None:
            await self.discard(subject_id, purpose)
        return subject_id

    async def peek(self, token_id: UUID, purpose: Purpose, secret_hash: bytes, *, at: datetime) -> UUID | None:
        """Return what `consume` would."""
        token = self.rows.get(token_id)
        if token is None or (token.purpose, token.secret_hash) != (purpose, secret_hash) or token.expires_at <= at:
            return None
        return token.subject_id

    async def discard(self, subject_id: UUID, purpose: Purpose) -> None:
        """Let every token of a purpose and a subject die."""
        for row in [row for row in self.rows.values() if (row.subject_id, row.purpose) == (subject_id, purpose)]:
            del self.rows[row.id]

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Forget expired tokens."""
        return _purge(self.rows, lambda row: row.expires_at <= before, limit)

    def _family(self, token: OneTimeToken) -> list[OneTimeToken]:
        return [row for row in self.rows.values() if (row.subject_id, row.purpose) == (token.subject_id, token.purpose)]


class MemoryLoginAttempts(LoginAttempts):
    """Counters by key."""

    def __init__(self) -> None:
        self.rows: dict[Key, Counter] = {}

    async def hold(self, keys: Collection[Key]) -> Mapping[Key, Counter]:
        """Return the counters: blocks of a unit of work wait for each other anyway."""
        return {key: self.rows.get(key, Counter()) for key in keys}

    async def keep(self, counters: Mapping[Key, Counter]) -> None:
        """Replace counters."""
        self.rows.update(counters)

    async def forget(self, keys: Collection[Key]) -> None:
        """Drop counters."""
        for key in keys:
            self.rows.pop(key, None)

    async def forget_account(self, account: str) -> None:
        """Drop every counter of an account."""
        await self.forget([key for key in self.rows if key.account == account])

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Drop dead counters."""
        return _purge(self.rows, lambda row: row.dies_at is None or row.dies_at <= before, limit)


class MemoryAuditTrail(AuditTrail):
    """Audit records in the order of their making."""

    def __init__(self, clock: Clock, new_id: IdSource) -> None:
        self.rows: list[AuditRecord] = []
        self._clock = clock
        self._new_id = new_id

    @property
    def events(self) -> list[AuditEvent]:
        """What was recorded, without when."""
        return [row.event for row in self.rows]

    def record(self, event: AuditEvent) -> None:
        """Append an event."""
        self.rows.append(AuditRecord(self._new_id(), self._clock.now(), current_context().correlation_id, event))


class MemoryAuditLog(AuditLog):
    """Reads what the trail of a unit of work holds."""

    def __init__(self, trail: MemoryAuditTrail) -> None:
        self._trail = trail

    async def stream(
        self, since: datetime, until: datetime, actions: Collection[AuditAction] | None = None
    ) -> AsyncIterator[AuditRecord]:
        """Go through what happened, oldest first."""
        for row in sorted(self._trail.rows, key=lambda row: (row.at, row.id)):
            if since <= row.at < until and (actions is None or row.event.action in actions):
                yield row


class MemoryAuthUnitOfWork(MemoryUnitOfWork, AuthUnitOfWork):
    """Everything that auth keeps, in memory; the blocks of concurrent tasks wait for each other.

    The repositories hold frozen entities in `rows`, for a test to read: `work.users.rows`, `work.outbox.tasks`. Ids
    for what is to be kept come from `new_id`, counted.
    """

    registrations: MemoryRegistrations
    users: MemoryUsers
    sessions: MemorySessions
    refresh_tokens: MemoryRefreshTokens
    one_time_tokens: MemoryOneTimeTokens
    attempts: MemoryLoginAttempts
    audit: MemoryAuditTrail
    signing_keys: MemorySigningKeys

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.new_id = CountingIds()
        self.registrations = MemoryRegistrations()
        self.users = MemoryUsers()
        self.sessions = MemorySessions()
        self.refresh_tokens = MemoryRefreshTokens()
        self.one_time_tokens = MemoryOneTimeTokens()
        self.attempts = MemoryLoginAttempts()
        self.audit = MemoryAuditTrail(clock, CountingIds())
        self.signing_keys = MemorySigningKeys()
        self._turn = asyncio.Lock()

    def tables(self) -> Sequence[dict[Any, Any] | list[Any]]:
        """Return every collection that a roll-back restores."""
        return (
            *super().tables(),
            self.registrations.rows,
            self.users.rows,
            self.users.superseded_at,
            self.sessions.rows,
            self.sessions.reasons,
            self.refresh_tokens.rows,
            self.one_time_tokens.rows,
            self.attempts.rows,
            self.audit.rows,
            self.signing_keys.rows,
        )

    async def __aenter__(self) -> Self:
        await self._turn.acquire()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        self._turn.release()
