"""Session revocation: ends sessions and makes every process reject their access tokens."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.ports import Revocations
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.revocations import revoked_session
from tequipy_auth.domain.value_objects import Client
from tequipy_platform import Delivery


@dataclass(frozen=True, slots=True)
class SessionRevocation:
    """The reason, the time and the author of a session revocation."""

    reason: str
    at: datetime
    action: AuditAction = AuditAction.SESSION_REVOKED
    actor_id: UUID | None = None
    client: Client = field(default_factory=Client)


class SessionEnder:
    """Revokes sessions in a unit of work, audits it, and publishes the revoked ids after the commit.

    The ids are published twice: by `publish` right after the commit, so that they arrive within milliseconds, and by a
    task from the outbox of the same transaction, so that they arrive even if the process dies. Both are idempotent.
    """

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations

    async def end(
        self, work: AuthUnitOfWork, user_id: UUID, session_ids: Iterable[UUID], revocation: SessionRevocation
    ) -> tuple[str, ...]:
        """Revoke these sessions of an account; return the revoked ids to `publish` after the commit."""
        ended = [
            each
            for each in sorted(session_ids)
            if await work.sessions.revoke(each, at=revocation.at, reason=revocation.reason)
        ]
        return self._announce(work, user_id, ended, revocation)

    async def end_all(
        self, work: AuthUnitOfWork, user_id: UUID, revocation: SessionRevocation, *, keep: UUID | None = None
    ) -> tuple[str, ...]:
        """Revoke all sessions of an account except `keep`; return the revoked ids to `publish` after the commit."""
        ended = await work.sessions.revoke_all(user_id, keep=keep, at=revocation.at, reason=revocation.reason)
        return self._announce(work, user_id, ended, revocation)

    async def publish(self, revoked_ids: Iterable[str]) -> None:
        """Publish the ids that `end` or `end_all` returned to every process."""
        await self._revocations.add(*revoked_ids)

    async def publish_again(self, _delivery: Delivery, *, members: list[str]) -> None:
        """Run the task `auth.publish_revocations`."""
        await self.publish(members)

    def _announce(
        self, work: AuthUnitOfWork, user_id: UUID, ended: Iterable[UUID], revocation: SessionRevocation
    ) -> tuple[str, ...]:
        revoked_ids = []
        for session_id in ended:
            revoked_ids.append(revoked_session(session_id))
            work.audit.record(
                AuditEvent(
                    revocation.action,
                    reason=revocation.reason,
                    actor_id=revocation.actor_id,
                    subject_id=user_id,
                    session_id=session_id,
                    client=revocation.client,
                )
            )
        if revoked_ids:
            work.outbox.add("auth.publish_revocations", members=list(revoked_ids))
        return tuple(revoked_ids)
