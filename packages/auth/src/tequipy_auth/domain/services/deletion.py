"""Deletion of the caller's own account: disabled at once, erased some days later."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.entities import UserStatus
from tequipy_auth.domain.exceptions import LastAdmin
from tequipy_auth.domain.lockout import Lockout
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.administration import refuse_last_administrator
from tequipy_auth.domain.services.email_changes import delete_change
from tequipy_auth.domain.services.password_check import PasswordCheck, VerifiedAttempt
from tequipy_auth.domain.services.session_issuer import SessionIssuer, SessionRevocation, find_caller
from tequipy_auth.domain.task_names import SEND_MAIL
from tequipy_auth.domain.value_objects import Client, Principal, Purpose
from tequipy_platform import Clock, Delivery, Event, retry_conflicts

ACCOUNT_ERASED: Final = "auth.account_erased"
"""The event after which other packages erase what they hold about an account; its payload is `user_id`."""

_BATCH_SIZE: Final = 100


class DeletionService:
    """Deletes accounts at the request of their owners."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        check: PasswordCheck,
        issuer: SessionIssuer,
        lockout: Lockout,
        pseudonyms: Pseudonyms,
        policy: AuthPolicy,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._check = check
        self._issuer = issuer
        self._lockout = lockout
        self._pseudonyms = pseudonyms
        self._policy = policy
        self._clock = clock
        self._operations = operations

    @counted("delete_account")
    async def request(self, principal: Principal, *, password: str, client: Client) -> None:
        """Disable the caller's account and end its sessions; it is erased after `erasure_delay`.

        Raises `InvalidCredentials`, `LastAdmin`, `LoginLocked`, `Unavailable`, and `InvalidAccessToken` when the
        session has ended.
        """
        async with self._unit_of_work() as work:
            user, session = await find_caller(work, principal, at=self._clock.now())
            attempt = await self._check.reserve(
                work,
                address=user.email,
                user=user,
                client=client,
                operation="delete_account",
                session_id=session.id,
            )
        verified = await self._check.verify(attempt, password)
        async with self._check.settled(verified):
            try:
                await self._request(verified, session.id, client)
            except LastAdmin as error:
                await self._check.refuse(verified, error.code)  # the password was correct
                raise

    @retry_conflicts
    async def _request(self, verified: VerifiedAttempt, session_id: UUID, client: Client) -> None:
        """Commit the request."""
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await work.users.lock_administrators()
            user = await self._check.confirm(work, verified)
            await refuse_last_administrator(work, user)
            await work.users.set_status(user.id, UserStatus.DELETING, erase_at=now + self._policy.erasure_delay)
            for purpose in Purpose:
                await work.one_time_tokens.discard(user.id, purpose)
            await work.email_changes.close_pending(user.id)
            revocation = SessionRevocation("account_deleted", now, actor_id=user.id, client=client)
            revoked_ids = await self._issuer.revoke_all(work, user.id, revocation)
            revoked_ids += await self._issuer.supersede(work, user.id)
            work.outbox.add(SEND_MAIL, mail="account_deleted", subject_id=str(user.id))
            work.audit.record(
                AuditEvent(
                    AuditAction.DELETION_REQUESTED,
                    actor_id=user.id,
                    subject_id=user.id,
                    session_id=session_id,
                    client=client,
                )
            )
        await self._issuer.publish(revoked_ids)

    async def erase_due(self, _delivery: Delivery) -> None:
        """Run the task `auth.erase_accounts`: erase every account whose time has come, each in its own transaction."""
        while True:
            async with self._unit_of_work() as work:
                due = await work.users.due_for_erasure(at=self._clock.now(), limit=_BATCH_SIZE)
            for user_id in due:
                await self._erase(user_id)
            if len(due) < _BATCH_SIZE:
                return

    @counted("erase_account")
    @retry_conflicts
    async def _erase(self, user_id: UUID) -> None:
        """Delete everything about an account, and let other packages do the same.

        The audit keeps its events with their ids, which then name nobody.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            user = await work.users.lock(user_id)
            if user is None or user.status is not UserStatus.DELETING or user.erase_at is None or user.erase_at > now:
                return  # erased, or enabled again meanwhile
            addresses = {user.email.canonical: user.email}
            for change in await work.email_changes.of(user.id):
                addresses[change.old.canonical] = change.old
                await delete_change(work, change.id)
            await work.audit.erase(user.id, [self._pseudonyms.of_address(each) for each in addresses.values()])
            for address in addresses.values():
                await work.registrations.delete_for(address.canonical)
                await work.invitations.delete_for(address.canonical)
                await self._lockout.unlock(work.attempts, address)
            for session in await work.sessions.all_of(user.id):
                await work.one_time_tokens.discard(session.id, Purpose.END_SESSION)
            for purpose in Purpose:
                await work.one_time_tokens.discard(user.id, purpose)
            await work.users.erase(user.id)
            work.outbox.publish(Event(ACCOUNT_ERASED, {"user_id": str(user.id)}))
            work.audit.record(AuditEvent(AuditAction.ACCOUNT_ERASED, subject_id=user.id))
