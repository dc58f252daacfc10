"""The mails of auth; each attempt decides anew which mail to send, creates its token and renders its text."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from tequipy_auth.domain.entities import EmailChangeState, Registration, User, UserStatus
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.policy import INVITATION_TTL, AuthPolicy
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.mail_budget import MailBudget, MailPurpose
from tequipy_auth.domain.services.one_time_tokens import LinkMinter, MailedLink
from tequipy_auth.domain.value_objects import EmailAddress, Purpose
from tequipy_platform import Clock, Delivery, Lease, Mail, Mailer, MailRejected, MailTemplates, MailUnavailable

LEASE: Final = timedelta(seconds=30)
"""How long an attempt may take; below every visibility timeout, so that a redelivery finds an expired lease."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A mail that is not rendered yet: recipient, template and the values for the template."""

    to: str
    template: str
    values: Mapping[str, object] = field(repr=False)  # hidden because a link contains a one-time token


_Writer = Callable[[AuthUnitOfWork, Delivery, UUID], Awaitable[_Draft | None]]


class MailingService:
    """Sends mails: runs the task `auth.send_mail`, whose parameters are the kind of mail and the id of its subject.

    - `verification`, about a registration or an account: a link to verify it, or the notice that it exists already
    - `verification_again`, about the same: the same, but no link if the address is contested
    - `invitation`, about an invitation: a link to create the account, or the notice that it exists already
    - `reset_password`, about an account: a link to set a new password
    - `password_changed`, about an account: a notice
    - `account_deleted`, about an account: a notice that the account was deleted, and when it will be erased
    - `email_change_confirmation`, about a change of address, to the new one: a link, or a notice if taken
    - `email_change_notice`, about a change of address, to the old one: a link to undo the change
    - `email_change_undone`, about an account: a notice that the old address was restored
    - `new_sign_in`, about a session: a notice of a login from a new device or range, with a link that ends the session
    - `session_ended`, about an account: a notice that this link ended a session, with a link to set a new password
    - `session_stolen`, about an account: a notice that a used refresh token was presented, and the session ended

    Nothing is sent for a subject that does not exist (any more) or when the budget of the address is used up. The
    latter is counted as `auth_operations_total{operation="send_mail",status="over_budget"}`.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        mailer: Mailer,
        templates: MailTemplates,
        links: LinkMinter,
        budget: MailBudget,
        policy: AuthPolicy,
        public_url: str,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._mailer = mailer
        self._templates = templates
        self._links = links
        self._budget = budget
        self._policy = policy
        self._public_url = public_url
        self._clock = clock
        self._operations = operations
        self._writers: Mapping[str, _Writer] = {
            "verification": partial(self._verification, purpose="register"),
            "verification_again": partial(self._verification, purpose="resend"),
            "invitation": self._invitation,
            "reset_password": partial(self._reset_password, purpose="forgot_password", template="reset_password"),
            "session_ended": partial(self._reset_password, purpose="end_session", template="session_ended"),
            "new_sign_in": self._new_sign_in,
            "password_changed": partial(self._notice, template="password_changed"),
            "account_deleted": self._account_deleted,
            "email_change_confirmation": self._email_change_confirmation,
            "email_change_notice": self._email_change_notice,
            "email_change_undone": partial(self._notice, template="email_change_undone"),
            "session_stolen": partial(self._notice, template="session_stolen"),
        }

    async def send_mail(self, delivery: Delivery, *, mail: str, subject_id: str) -> None:
        """Send a mail of the given kind; a repeated delivery sends nothing, or the same Message-ID again.

        Raises `MailUnavailable` (retried), `MailRejected` (final), and `LookupError` for an unknown kind, which is
        retried because a newer release may know it.
        """
        if mail not in self._writers:
            raise LookupError(f"no mail of the kind {mail!r}")
        async with self._unit_of_work() as work:
            lease = await work.inbox.lease(delivery, LEASE)
            draft = await self._writers[mail](work, delivery, UUID(subject_id)) if lease is Lease.TAKEN else None
        if lease is Lease.HELD:
            raise MailUnavailable("Another attempt is sending this mail.")
        if lease is Lease.DONE:
            return
        if draft is not None:
            await self._deliver(delivery, draft)
        async with self._unit_of_work() as work:
            await work.inbox.done(delivery)

    async def _deliver(self, delivery: Delivery, draft: _Draft) -> None:
        try:
            text = self._templates.render(draft.template, **draft.values)
            await self._mailer.send(Mail(draft.to, text.subject, text.text, self._message_id(delivery), html=text.html))
        except Exception as error:
            async with self._unit_of_work() as work:
                await work.inbox.release(delivery)
                if isinstance(error, MailRejected):
                    await self._budget.release(work, delivery)
            raise

    async def _verification(
        self, work: AuthUnitOfWork, delivery: Delivery, subject_id: UUID, *, purpose: MailPurpose
    ) -> _Draft | None:
        registration = await work.registrations.get(subject_id)
        user = await work.users.get(subject_id)
        if registration is not None and registration.expires_at > self._clock.now():
            if not await self._may_send(work, delivery, purpose, registration.email):
                return None
            if purpose == "resend" and await self._is_contested(work, registration):
                # It is unknown which registration belongs to the owner: a link could verify an attacker's, with the
                # attacker's password.
                return _Draft(registration.email.written, "register_again", {"public_url": self._public_url})
            return await self._registration_mail(work, registration)
        if user is not None and not user.email_verified:
            if not await self._may_send(work, delivery, purpose, user.email):
                return None
            return await self._account_mail(work, user)
        return None

    async def _is_contested(self, work: AuthUnitOfWork, registration: Registration) -> bool:
        """Return whether the address has several pending registrations and no account."""
        address = registration.email.canonical
        if await work.users.by_email(address) is not None:
            return False
        return await work.registrations.count_pending(address, at=self._clock.now()) > 1

    async def _registration_mail(self, work: AuthUnitOfWork, registration: Registration) -> _Draft:
        """Return a mail with a link for the registration, or the notice that the address has an account already."""
        if await self._has_account(work, registration.email):
            return _Draft(registration.email.written, "already_registered", {"public_url": self._public_url})
        link = await self._links.link(
            work,
            Purpose.VERIFY_EMAIL,
            registration.id,
            ttl=self._policy.verify_email_ttl,
            not_after=registration.expires_at,
        )
        # The mail omits the name: it was entered by somebody who has not proven that the address is theirs. It contains
        # the time, so that the recipient can tell whether the registration was their own.
        return _Draft(
            registration.email.written,
            "verify_email",
            {"registered_at": _format_time(registration.created_at), **_link_values(link)},
        )

    async def _account_mail(self, work: AuthUnitOfWork, user: User) -> _Draft:
        """Return a mail with a link for an unverified account, which open registration created."""
        link = await self._links.link(work, Purpose.VERIFY_EMAIL, user.id, ttl=self._policy.verify_email_ttl)
        return _Draft(
            user.email.written, "verify_email", {"registered_at": _format_time(user.created_at), **_link_values(link)}
        )

    async def _invitation(self, work: AuthUnitOfWork, delivery: Delivery, invitation_id: UUID) -> _Draft | None:
        invitation = await work.invitations.get(invitation_id)
        if invitation is None or invitation.expires_at <= self._clock.now():
            return None
        user = await work.users.by_email(invitation.email.canonical)
        if user is not None and user.status is not UserStatus.ACTIVE:
            return None
        if not await self._may_send(work, delivery, "invitation", invitation.email):
            return None
        if await self._has_account(work, invitation.email):
            to = user.email if user else invitation.email
            return _Draft(to.written, "invited_with_account", {"public_url": self._public_url})
        link = await self._links.link(
            work, Purpose.ACCEPT_INVITATION, invitation.id, ttl=INVITATION_TTL, not_after=invitation.expires_at
        )
        return _Draft(invitation.email.written, "invitation", _link_values(link))

    async def _reset_password(
        self, work: AuthUnitOfWork, delivery: Delivery, user_id: UUID, *, purpose: MailPurpose, template: str
    ) -> _Draft | None:
        # The lock makes a concurrent change of the address, password or status wait, or this mail for it: they
        # invalidate all links, and a link that is created unseen would remain valid, at an address of the past.
        user = await work.users.lock(user_id)
        if user is None or user.status is not UserStatus.ACTIVE:
            return None
        if not await self._may_send(work, delivery, purpose, user.email):
            return None
        link = await self._links.link(work, Purpose.RESET_PASSWORD, user.id, ttl=self._policy.reset_password_ttl)
        return _Draft(user.email.written, template, _link_values(link))

    async def _new_sign_in(self, work: AuthUnitOfWork, delivery: Delivery, session_id: UUID) -> _Draft | None:
        session = await work.sessions.get(session_id)
        user = await work.users.get(session.user_id) if session else None
        if session is None or user is None or not _is_active(user):
            return None
        if not await self._may_send(work, delivery, "new_sign_in", user.email):
            return None
        link = await self._links.link(work, Purpose.END_SESSION, session.id, ttl=self._policy.end_session_ttl)
        # Without the user agent: a stranger would write a text of their own into the mail.
        values = {"signed_in_at": _format_time(session.auth_time), "ip": session.client.ip or "unknown"}
        return _Draft(user.email.written, "new_sign_in", {**values, **_link_values(link)})

    async def _notice(self, work: AuthUnitOfWork, delivery: Delivery, user_id: UUID, *, template: str) -> _Draft | None:
        del delivery  # notices have no budget, because they need the account's password or token
        user = await work.users.get(user_id)
        return _Draft(user.email.written, template, {"public_url": self._public_url}) if user else None

    async def _account_deleted(self, work: AuthUnitOfWork, delivery: Delivery, user_id: UUID) -> _Draft | None:
        del delivery  # as above
        user = await work.users.get(user_id)
        if user is None or user.erase_at is None:
            return None  # erased, or enabled again meanwhile
        return _Draft(user.email.written, "account_deleted", {"erase_at": _format_time(user.erase_at)})

    async def _email_change_confirmation(
        self, work: AuthUnitOfWork, delivery: Delivery, change_id: UUID
    ) -> _Draft | None:
        change = await work.email_changes.get(change_id)
        user = await work.users.get(change.user_id) if change else None
        if change is None or change.state is not EmailChangeState.PENDING or not _is_active(user):
            return None
        owner = await work.users.by_email(change.new.canonical)
        if owner is not None and not _is_active(owner):
            return None
        if not await self._may_send(work, delivery, "change_email", change.new):
            return None
        if await self._has_account(work, change.new, other_than=change.user_id):
            return _Draft(change.new.written, "email_in_use", {"public_url": self._public_url})
        link = await self._links.link(work, Purpose.CONFIRM_EMAIL, change.id, ttl=self._policy.confirm_email_ttl)
        requested_at = _format_time(change.requested_at)
        return _Draft(change.new.written, "confirm_email", {"requested_at": requested_at, **_link_values(link)})

    async def _email_change_notice(self, work: AuthUnitOfWork, delivery: Delivery, change_id: UUID) -> _Draft | None:
        del delivery  # the number of changes is limited instead, so that each one can be undone
        change = await work.email_changes.get(change_id)
        user = await work.users.get(change.user_id) if change else None
        if change is None or change.undo_until <= self._clock.now() or not _is_active(user):
            return None
        link = await self._links.link(
            work, Purpose.UNDO_EMAIL, change.id, ttl=self._policy.undo_email_ttl, not_after=change.undo_until
        )
        requested_at = _format_time(change.requested_at)
        return _Draft(
            change.old.written,
            "undo_email",
            {"new_email": change.new.written, "requested_at": requested_at, **_link_values(link)},
        )

    async def _has_account(
        self, work: AuthUnitOfWork, address: EmailAddress, *, other_than: UUID | None = None
    ) -> bool:
        """Return whether the address belongs to an account, or can be restored to one."""
        owner = await work.users.by_email(address.canonical)
        if owner is not None:
            return owner.id != other_than
        return await work.email_changes.is_restorable(address.canonical, at=self._clock.now(), to_other_than=other_than)

    async def _may_send(
        self, work: AuthUnitOfWork, delivery: Delivery, purpose: MailPurpose, address: EmailAddress
    ) -> bool:
        """Charge the budget; return whether the mail may be sent.

        Call it before a link is created: a further link would invalidate an earlier one, although no mail is sent.
        """
        allowed = await self._budget.charge(work, delivery, purpose, address)
        if not allowed:
            self._operations.count("send_mail", "over_budget")
        return allowed

    def _message_id(self, delivery: Delivery) -> str:
        return f"<{delivery.id}@{urlsplit(self._public_url).hostname}>"


def _is_active(user: User | None) -> bool:
    return user is not None and user.status is UserStatus.ACTIVE


def _link_values(link: MailedLink) -> Mapping[str, object]:
    return {"expires_at": _format_time(link.expires_at), "link": link.url}


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
