"""Changes of an account's address: confirmed by a link to the new address, undone by a link to the old one."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.entities import EmailChange, EmailChangeState, User, UserStatus
from tequipy_auth.domain.exceptions import EmailTaken, InvalidAccessToken, InvalidAddress, InvalidOneTimeToken
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import AddressParser
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.accounts import AccountService
from tequipy_auth.domain.services.mail_budget import WINDOW
from tequipy_auth.domain.services.one_time_tokens import read_one_time_token, record_refused_token
from tequipy_auth.domain.services.session_issuer import SessionIssuer, SessionRevocation, find_caller
from tequipy_auth.domain.task_names import DROP_PROFILE, SEND_MAIL
from tequipy_auth.domain.value_objects import Client, EmailAddress, OneTimeTokenValue, Principal, Purpose
from tequipy_platform import Clock, IdSource, retry_conflicts


class EmailChangeService:
    """Changes addresses of accounts.

    A request that was not the owner's cannot cost them the account: the old address gets a link that undoes the change
    and all later ones. Until it expires, no other account can get the old address.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        addresses: AddressParser,
        accounts: AccountService,
        issuer: SessionIssuer,
        pseudonyms: Pseudonyms,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._addresses = addresses
        self._accounts = accounts
        self._issuer = issuer
        self._pseudonyms = pseudonyms
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._operations = operations

    @counted("request_email_change")
    @retry_conflicts
    async def request(self, principal: Principal, *, new_email: str, client: Client) -> None:
        """Request a change of the caller's address; the worker mails a link to the new and one to the old address.

        The caller has authenticated within the last few minutes (`LoginService.require_fresh`). Nothing tells whether
        the new address has an account. The account's own address, and more than `mails_per_hour` requests, change
        nothing. Raises `InvalidAddress`, and `InvalidAccessToken` when the session has ended.
        """
        try:
            new = self._addresses.parse(new_email)
        except InvalidAddress as error:
            raise InvalidAddress("/new_email") from error
        async with self._unit_of_work() as work:
            user = await work.users.lock(principal.user_id)
            if user is None:
                raise InvalidAccessToken
            await find_caller(work, principal, at=self._clock.now())
            changes = await work.email_changes.of(user.id)
            refusal = self._refusal(user, new, changes)
            if refusal is None:
                await self._add(work, user, new, number=changes[0].number + 1 if changes else 1)
            work.audit.record(
                AuditEvent(
                    AuditAction.EMAIL_CHANGE_REQUESTED,
                    Outcome.FAILURE if refusal else Outcome.SUCCESS,
                    refusal,
                    actor_id=user.id,
                    subject_id=user.id,
                    session_id=principal.session_id,
                    client=client,
                    metadata={"address": self._pseudonyms.of_address(new)},
                )
            )

    @counted("confirm_email_change")
    @retry_conflicts
    async def confirm(self, token: str, *, client: Client) -> None:
        """Give an account the new address with the token that was mailed there; its sessions continue.

        Raises `InvalidOneTimeToken` for any fault of the token, and when the address has been taken.
        """
        value = read_one_time_token(token)
        try:
            user = await self._confirm(value, client)
        except InvalidOneTimeToken as error:
            await self._record_refusal(value, AuditAction.EMAIL_CHANGED, error, client)
            raise
        await self._accounts.store(user)

    @counted("undo_email_change")
    @retry_conflicts
    async def undo(self, token: str, *, client: Client) -> None:
        """Undo a change and all later ones with the token that was mailed to the old address.

        Changes that are not confirmed are cancelled. If one is confirmed, the account gets the old address back and all
        its sessions end. Raises `InvalidOneTimeToken` for any fault of the token.
        """
        value = read_one_time_token(token)
        try:
            user, revoked_ids = await self._undo(value, client)
        except InvalidOneTimeToken as error:
            await self._record_refusal(value, AuditAction.EMAIL_CHANGE_UNDONE, error, client)
            raise
        await self._issuer.publish(revoked_ids)
        await self._accounts.store(user)

    def _refusal(self, user: User, new: EmailAddress, changes: Sequence[EmailChange]) -> str | None:
        """Return why the request changes nothing, or None.

        A further change within the limit is mailed to the old address like each one before it. So there is no change
        without a link that undoes it, and nobody can use up the owner's mails first.
        """
        if new == user.email:
            return "same_address"
        since = self._clock.now() - WINDOW
        recent = [each for each in changes if each.old.canonical == user.email.canonical and each.requested_at > since]
        return "over_budget" if len(recent) >= self._policy.mails_per_hour else None

    async def _add(self, work: AuthUnitOfWork, user: User, new: EmailAddress, *, number: int) -> None:
        now = self._clock.now()
        change = EmailChange(
            id=self._new_id(),
            user_id=user.id,
            number=number,
            old=user.email,
            new=new,
            requested_at=now,
            undo_until=now + self._policy.undo_email_ttl,
        )
        await work.email_changes.add(change)
        await work.email_changes.close_pending(user.id, keep=self._policy.live_tokens_per_purpose)
        work.outbox.add(SEND_MAIL, mail="email_change_confirmation", subject_id=str(change.id))
        work.outbox.add(SEND_MAIL, mail="email_change_notice", subject_id=str(change.id))

    async def _confirm(self, token: OneTimeTokenValue, client: Client) -> User:
        now = self._clock.now()
        async with self._unit_of_work() as work:
            change = await _use(work, token, Purpose.CONFIRM_EMAIL, now)
            if change.state is not EmailChangeState.PENDING:
                raise InvalidOneTimeToken
            user = await _set_email(work, change.user_id, change.new, now)
            await work.email_changes.set_state(change.id, EmailChangeState.CONFIRMED)
            await work.email_changes.close_pending(user.id)
            await work.registrations.delete_for(change.new.canonical)
            await work.invitations.delete_for(change.new.canonical)
            work.audit.record(self._event(AuditAction.EMAIL_CHANGED, change, client))
        return user

    async def _undo(self, token: OneTimeTokenValue, client: Client) -> tuple[User, tuple[str, ...]]:
        now = self._clock.now()
        revoked_ids: tuple[str, ...] = ()
        async with self._unit_of_work() as work:
            change = await _use(work, token, Purpose.UNDO_EMAIL, now)
            undone = [each for each in await work.email_changes.of(change.user_id) if each.number >= change.number]
            confirmed = any(each.state is EmailChangeState.CONFIRMED for each in undone)
            for each in undone:
                await delete_change(work, each.id)
            user = await work.users.get(change.user_id)
            if confirmed:
                user = await _set_email(work, change.user_id, change.old, now)
                revocation = SessionRevocation("email_change_undone", now, actor_id=user.id, client=client)
                revoked_ids = await self._issuer.revoke_all(work, user.id, revocation)
                work.outbox.add(SEND_MAIL, mail="email_change_undone", subject_id=str(user.id))
            reason = "restored" if confirmed else "cancelled"
            work.audit.record(self._event(AuditAction.EMAIL_CHANGE_UNDONE, change, client, reason))
        if user is None:
            raise InvalidOneTimeToken
        return user, revoked_ids

    def _event(self, action: AuditAction, change: EmailChange, client: Client, reason: str | None = None) -> AuditEvent:
        metadata = {"address": self._pseudonyms.of_address(change.new)}
        return AuditEvent(
            action, reason=reason, actor_id=change.user_id, subject_id=change.user_id, client=client, metadata=metadata
        )

    async def _record_refusal(
        self, token: OneTimeTokenValue, action: AuditAction, error: InvalidOneTimeToken, client: Client
    ) -> None:
        async with self._unit_of_work() as work:
            await record_refused_token(work, token, action, error.code, client)


async def delete_change(work: AuthUnitOfWork, change_id: UUID) -> None:
    """Delete a change of address and its links."""
    for purpose in (Purpose.CONFIRM_EMAIL, Purpose.UNDO_EMAIL):
        await work.one_time_tokens.discard(change_id, purpose)
    await work.email_changes.delete(change_id)


async def _use(work: AuthUnitOfWork, token: OneTimeTokenValue, purpose: Purpose, now: datetime) -> EmailChange:
    """Lock the account, use the token and return its change; raises `InvalidOneTimeToken`."""
    presented = (token.id, purpose, token.secret_hash)
    change_id = await work.one_time_tokens.peek(*presented, at=now)
    found = await work.email_changes.get(change_id) if change_id else None
    user = await work.users.lock(found.user_id) if found else None
    if found is None or user is None or user.status is not UserStatus.ACTIVE:
        raise InvalidOneTimeToken
    if await work.one_time_tokens.consume(*presented, at=now) is None:
        raise InvalidOneTimeToken
    change = await work.email_changes.get(found.id)  # once more, as it is under the lock
    if change is None:
        raise InvalidOneTimeToken
    return change


async def _set_email(work: AuthUnitOfWork, user_id: UUID, email: EmailAddress, now: datetime) -> User:
    """Replace the address of a locked account; links to reset the password that were mailed to the other one end."""
    try:
        user = await work.users.set_email(user_id, email, at=now)
    except EmailTaken as error:
        raise InvalidOneTimeToken from error
    if user is None:
        raise InvalidOneTimeToken
    await work.one_time_tokens.discard(user_id, Purpose.RESET_PASSWORD)
    work.outbox.add(DROP_PROFILE, user_id=str(user_id))
    return user
