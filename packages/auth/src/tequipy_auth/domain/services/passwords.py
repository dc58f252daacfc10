"""Password reset by mail, and password change."""

from collections.abc import Callable
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.entities import User, UserStatus
from tequipy_auth.domain.exceptions import InvalidOneTimeToken
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.lockout import Lockout
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.passwords import PasswordRules
from tequipy_auth.domain.ports import AddressParser, PasswordHasher
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.one_time_tokens import read_one_time_token, record_refused_token
from tequipy_auth.domain.services.password_check import PasswordCheck, VerifiedAttempt
from tequipy_auth.domain.services.session_issuer import SessionIssuer, SessionRevocation, find_caller
from tequipy_auth.domain.task_names import SEND_MAIL
from tequipy_auth.domain.value_objects import Client, OneTimeTokenValue, PasswordHash, Principal, Purpose
from tequipy_platform import Clock, IdSource, retry_conflicts


class PasswordService:
    """Sets new passwords; each change ends the account's other sessions and notifies the owner by mail."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        rules: PasswordRules,
        hasher: PasswordHasher,
        check: PasswordCheck,
        devices: DeviceMarks,
        lockout: Lockout,
        issuer: SessionIssuer,
        pseudonyms: Pseudonyms,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._rules = rules
        self._hasher = hasher
        self._check = check
        self._devices = devices
        self._lockout = lockout
        self._issuer = issuer
        self._pseudonyms = pseudonyms
        self._clock = clock
        self._new_id = new_id
        self._operations = operations

    @counted("forgot_password")
    @retry_conflicts
    async def forgot(self, *, email: str, client: Client) -> None:
        """Request a link to reset the password; does the same work for every address.

        Raises `InvalidAddress`.
        """
        address = self._addresses.parse(email)
        async with self._unit_of_work() as work:
            user = await work.users.by_email(address.canonical)
            subject_id = user.id if user else self._new_id()  # an id without an account; the worker then sends nothing
            work.outbox.add(SEND_MAIL, mail="reset_password", subject_id=str(subject_id))
            work.audit.record(
                AuditEvent(
                    AuditAction.RESET_REQUESTED,
                    subject_id=user.id if user else None,
                    client=client,
                    metadata={"address": self._pseudonyms.of_address(address)},
                )
            )

    @counted("reset_password")
    @retry_conflicts
    async def reset(self, token: str, *, new_password: str, client: Client) -> None:
        """Set a new password with the token of a mailed link; end all sessions and device marks, unlock the account.

        The address becomes verified, because the link was sent to it. For one hour (`lockout.RESET_TRUST`) failed
        attempts of other clients do not lock this client address out of the account. Raises `InvalidOneTimeToken` for
        any fault of the token, and `WeakPassword`, after which the token can still be used.
        """
        value = read_one_time_token(token)
        try:
            await self._reset(value, new_password, client)
        except InvalidOneTimeToken as error:
            async with self._unit_of_work() as work:
                await record_refused_token(work, value, AuditAction.RESET_DONE, error.code, client)
            raise

    @counted("change_password")
    async def change(self, principal: Principal, *, current_password: str, new_password: str, client: Client) -> None:
        """Replace the password; the caller's session continues, all other sessions of the account end.

        Raises `WeakPassword` before anything is counted, `InvalidCredentials`, `LoginLocked`, `Unavailable`, and
        `InvalidAccessToken` when the session has ended.
        """
        async with self._unit_of_work() as work:
            user, session = await find_caller(work, principal, at=self._clock.now())
        accepted = await self._rules.accept(new_password, user.email)
        async with self._unit_of_work() as work:
            attempt = await self._check.reserve(
                work,
                address=user.email,
                user=user,
                client=client,
                operation="change_password",
                session_id=session.id,
            )
        verified = await self._check.verify(attempt, current_password)
        async with self._check.settled(verified):
            hashed = await self._hasher.hash(accepted, attempt.hashing_client)
            await self._change(verified, hashed, session.id, client)

    async def _reset(self, token: OneTimeTokenValue, new_password: str, client: Client) -> None:
        presented = (token.id, Purpose.RESET_PASSWORD, token.secret_hash)
        async with self._unit_of_work() as work:
            subject_id = await work.one_time_tokens.peek(*presented, at=self._clock.now())
            user = await work.users.get(subject_id) if subject_id else None
            if user is None or user.status is not UserStatus.ACTIVE:  # checked before the expensive hash
                raise InvalidOneTimeToken
            marked = await self._devices.recognise(work, user, client.device_mark) is not None
        accepted = await self._rules.accept(new_password, user.email)
        hashed = await self._hasher.hash(accepted, HashingClient.of(client, marked=marked))
        now = self._clock.now()
        async with self._unit_of_work() as work:
            user = await work.users.lock(user.id)
            if user is None or user.status is not UserStatus.ACTIVE:
                raise InvalidOneTimeToken
            if await work.one_time_tokens.consume(*presented, at=now) is None:
                raise InvalidOneTimeToken
            await self._lockout.reset(work.attempts, user.email, client)
            await work.users.set_verified(user.id)
            revoked_ids = await self._replace_password(
                work, user, hashed, SessionRevocation("password_reset", now, client=client)
            )
            work.audit.record(AuditEvent(AuditAction.RESET_DONE, subject_id=user.id, client=client))
        await self._issuer.publish(revoked_ids)

    @retry_conflicts
    async def _change(self, verified: VerifiedAttempt, hashed: PasswordHash, session_id: UUID, client: Client) -> None:
        """Commit the new hash."""
        revocation = SessionRevocation("password_changed", self._clock.now(), actor_id=verified.user.id, client=client)
        async with self._unit_of_work() as work:
            user = await self._check.confirm(work, verified)
            revoked_ids = await self._replace_password(work, user, hashed, revocation, keep=session_id)
            work.audit.record(
                AuditEvent(
                    AuditAction.PASSWORD_CHANGED,
                    actor_id=user.id,
                    subject_id=user.id,
                    session_id=session_id,
                    client=client,
                )
            )
        await self._issuer.publish(revoked_ids)

    async def _replace_password(
        self,
        work: AuthUnitOfWork,
        user: User,
        password: PasswordHash,
        revocation: SessionRevocation,
        *,
        keep: UUID | None = None,
    ) -> tuple[str, ...]:
        """Store the new hash, revoke the sessions except `keep`, and invalidate the links for a reset.

        A pending change of address ends too, because a person who knew the old password may have requested it.

        Returns the revoked ids to publish after the commit.
        """
        await work.users.set_password(user.id, password)
        await work.one_time_tokens.discard(user.id, Purpose.RESET_PASSWORD)
        await work.email_changes.close_pending(user.id)
        work.outbox.add(SEND_MAIL, mail="password_changed", subject_id=str(user.id))
        return await self._issuer.revoke_all(work, user.id, revocation, keep=keep)
