"""The mails of auth: at each attempt the worker decides what to send, creates the token and renders the text."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from tequipy_auth.domain.entities import Registration, User
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.mail_budget import MailBudget
from tequipy_auth.domain.services.one_time_tokens import LinkMinter, MailedLink
from tequipy_auth.domain.value_objects import EmailAddress, Purpose
from tequipy_platform import Clock, Delivery, Lease, Mail, Mailer, MailRejected, MailTemplates, MailUnavailable

LEASE: Final = timedelta(seconds=30)
"""How long an attempt may take; below every visibility timeout, so that a redelivery finds an expired lease."""


@dataclass(frozen=True, slots=True)
class _Message:
    """A mail to send: recipient, template and the values for the template."""

    to: str
    template: str
    values: Mapping[str, object] = field(repr=False)  # hidden because a link contains a one-time token


_Writer = Callable[[AuthUnitOfWork, Delivery, UUID], Awaitable[_Message | None]]


class MailingService:
    """Sends the mails that the outbox asks for: the task `send_mail` with `mail` and `subject_id`.

    | mail | subject_id | content |
    |---|---|---|
    | `verification` | a registration or an account | its link, or the notice that the account exists already |
    | `verification_again` | the same | the same, but no link if the address has several registrations |
    | `reset_password` | an account | its link |
    | `password_changed` | an account | a notice |
    | `session_stolen` | an account | a notice: a used refresh token was presented, the session was ended |

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
            "reset_password": self._reset_password,
            "password_changed": partial(self._notice, template="password_changed"),
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
            letter = await self._writers[mail](work, delivery, UUID(subject_id)) if lease is Lease.TAKEN else None
        if lease is Lease.HELD:
            raise MailUnavailable("Another attempt is sending this mail.")
        if lease is Lease.DONE:
            return
        if letter is not None:
            await self._deliver(delivery, letter)
        async with self._unit_of_work() as work:
            await work.inbox.done(delivery)

    async def _deliver(self, delivery: Delivery, letter: _Message) -> None:
        try:
            text = self._templates.render(letter.template, **letter.values)
            await self._mailer.send(
                Mail(letter.to, text.subject, text.text, self._message_id(delivery), html=text.html)
            )
        except Exception as error:
            async with self._unit_of_work() as work:
                await work.inbox.release(delivery)
                if isinstance(error, MailRejected):
                    await self._budget.release(work, delivery)
            raise

    async def _verification(
        self, work: AuthUnitOfWork, delivery: Delivery, subject_id: UUID, *, purpose: str
    ) -> _Message | None:
        registration = await work.registrations.get(subject_id)
        user = await work.users.get(subject_id)
        if registration is not None and registration.expires_at > self._clock.now():
            allowed = await self._may_send(work, delivery, purpose, registration.email)
            if allowed and purpose == "resend" and await self._is_contested(work, registration):
                # It is unknown which registration belongs to the owner: a link could verify an attacker's, with their
                # password.
                return _Message(registration.email.written, "register_again", {"public_url": self._public_url})
            return await self._about_registration(work, registration) if allowed else None
        if user is not None and not user.email_verified:
            allowed = await self._may_send(work, delivery, purpose, user.email)
            return await self._about_account(work, user) if allowed else None
        return None

    async def _is_contested(self, work: AuthUnitOfWork, registration: Registration) -> bool:
        address = registration.email.canonical
        if await work.users.by_email(address) is not None:
            return False
        return await work.registrations.count_pending(address, at=self._clock.now()) > 1

    async def _about_registration(self, work: AuthUnitOfWork, registration: Registration) -> _Message:
        if await work.users.by_email(registration.email.canonical) is not None:
            return _Message(registration.email.written, "already_registered", {"public_url": self._public_url})
        link = await self._links.link(
            work,
            Purpose.VERIFY_EMAIL,
            registration.id,
            ttl=self._policy.verify_email_ttl,
            not_after=registration.expires_at,
        )
        # The mail omits the name: it was entered by somebody who has not proven that the address is theirs. It contains
        # the time, so that the recipient can tell whether the registration was their own.
        return _Message(
            registration.email.written,
            "verify_email",
            {"registered_at": _format_time(registration.created_at), **_link_values(link)},
        )

    async def _about_account(self, work: AuthUnitOfWork, user: User) -> _Message:
        link = await self._links.link(work, Purpose.VERIFY_EMAIL, user.id, ttl=self._policy.verify_email_ttl)
        return _Message(
            user.email.written, "verify_email", {"registered_at": _format_time(user.created_at), **_link_values(link)}
        )

    async def _reset_password(self, work: AuthUnitOfWork, delivery: Delivery, user_id: UUID) -> _Message | None:
        user = await work.users.get(user_id)
        if user is None or not await self._may_send(work, delivery, "forgot_password", user.email):
            return None
        link = await self._links.link(work, Purpose.RESET_PASSWORD, user.id, ttl=self._policy.reset_password_ttl)
        return _Message(user.email.written, "reset_password", _link_values(link))

    async def _notice(
        self, work: AuthUnitOfWork, delivery: Delivery, user_id: UUID, *, template: str
    ) -> _Message | None:
        del delivery  # notices have no budget, because they need the account's password or token
        user = await work.users.get(user_id)
        return _Message(user.email.written, template, {"public_url": self._public_url}) if user else None

    async def _may_send(self, work: AuthUnitOfWork, delivery: Delivery, purpose: str, address: EmailAddress) -> bool:
        """Charge the budget; called before a link is created, so that an unsent mail invalidates no earlier link."""
        allowed = await self._budget.charge(work, delivery, purpose, address)
        if not allowed:
            self._operations.count("send_mail", "over_budget")
        return allowed

    def _message_id(self, delivery: Delivery) -> str:
        return f"<{delivery.id}@{urlsplit(self._public_url).hostname}>"


def _link_values(link: MailedLink) -> Mapping[str, object]:
    return {"expires_at": _format_time(link.expires_at), "link": link.url}


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
