"""The mails of auth: the worker decides what to send, mints the token and renders the text at each attempt."""

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from tequipy_auth.domain.entities import OneTimeToken, Registration
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import SECRET_BYTES, OneTimeTokenValue, Purpose
from tequipy_platform import (
    Clock,
    Delivery,
    IdSource,
    Lease,
    Mail,
    Mailer,
    MailTemplates,
    MailText,
    MailUnavailable,
    RandomSource,
)

LEASE = timedelta(seconds=30)
"""How long an attempt may take: below every visibility timeout, so a redelivery finds a dead attempt's lease over."""


class MailingService:
    """Sends the mails that the outbox asks for."""

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        mailer: Mailer,
        templates: MailTemplates,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        random: RandomSource,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._mailer = mailer
        self._templates = templates
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._random = random

    async def send_mail(self, delivery: Delivery, *, mail: str, subject_id: str) -> None:
        """Send the mail of a kind about a row; a repeated delivery sends nothing, or the same Message-ID again.

        Raises `MailUnavailable` (try again), `MailRejected` (final) and `LookupError` for an unknown kind (final).
        """
        if mail != "registration":
            raise LookupError(f"no mail of the kind {mail!r}")
        async with self._unit_of_work() as work:
            lease = await work.inbox.lease(delivery, LEASE)
            content = await self._registration_mail(work, UUID(subject_id)) if lease is Lease.TAKEN else None
        if lease is Lease.HELD:
            raise MailUnavailable("Another attempt is sending this mail.")
        if lease is Lease.DONE:
            return
        if content is not None:
            await self._hand_over(delivery, *content)
        async with self._unit_of_work() as work:
            await work.inbox.done(delivery)

    async def _hand_over(self, delivery: Delivery, address: str, text: MailText) -> None:
        mail = Mail(address, text.subject, text.text, self._message_id(delivery), html=text.html)
        try:
            await self._mailer.send(mail)
        except Exception:
            async with self._unit_of_work() as work:
                await work.inbox.release(delivery)
            raise

    async def _registration_mail(self, work: AuthUnitOfWork, registration_id: UUID) -> tuple[str, MailText] | None:
        """Return address and text for a registration, None when it is over; a known address learns of its account."""
        registration = await work.registrations.get(registration_id)
        if registration is None or registration.expires_at <= self._clock.now():
            return None
        if await work.users.by_email(registration.email.canonical) is not None:
            return registration.email.written, self._templates.render(
                "already_registered", public_url=self._policy.public_url
            )
        link = await self._verification_link(work, registration)
        # Without the name: it is a stranger's text, and this address is not verified to be that stranger's.
        return registration.email.written, self._templates.render("verify_email", link=link)

    async def _verification_link(self, work: AuthUnitOfWork, registration: Registration) -> str:
        now = self._clock.now()
        value = OneTimeTokenValue.new(self._new_id(), self._random(SECRET_BYTES))
        token = OneTimeToken(
            id=value.id,
            purpose=Purpose.VERIFY_EMAIL,
            subject_id=registration.id,
            secret_hash=value.secret_hash,
            created_at=now,
            expires_at=now + self._policy.verify_email_ttl,
        )
        await work.one_time_tokens.add(token, keep=self._policy.live_tokens_per_purpose)
        # In the fragment: it reaches no server, no log and no Referer; only a POST consumes it.
        return f"{self._policy.public_url}/{token.purpose.value}#token={value}"

    def _message_id(self, delivery: Delivery) -> str:
        return f"<{delivery.id}@{urlsplit(self._policy.public_url).hostname}>"
