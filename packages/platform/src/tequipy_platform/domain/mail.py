"""Mail: what is sent and the port that sends it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from tequipy_platform.domain.exceptions import DomainError, Unavailable


class MailRejected(DomainError):
    """This mail will never be accepted (no such mailbox, too big, a header that cannot be sent): do not try again."""

    code = "mail_rejected"
    title = "Mail rejected"
    detail = "The mail was refused for good."


class MailUnavailable(Unavailable):
    """The mail was not accepted this time (a 4xx of SMTP, no connection): try again."""

    code = "mail_unavailable"
    title = "Mail unavailable"
    detail = "The mail could not be handed over for the moment."


class MailSenderRefused(MailUnavailable):
    """The server refuses us, not this mail (credentials, right to relay, quota, policy): try again, and alert."""

    code = "mail_sender_refused"
    title = "Mail sender refused"
    detail = "The mail server refuses mail from this service."


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one address.

    `message_id` is the whole Message-ID with its angle brackets (RFC 5322, section 3.6.4), the same at every attempt,
    so that a mail sent twice is seen once. `repr` shows neither texts: they may hold a one-time token.
    """

    to: str
    subject: str
    text: str = field(repr=False)
    message_id: str
    html: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Mailer(ABC):
    """Hands mails over."""

    @abstractmethod
    async def send(self, mail: Mail) -> None:
        """Hand one mail over; raises `MailRejected` (final), `MailUnavailable` or `MailSenderRefused` (try again)."""


@dataclass(frozen=True, slots=True)
class MailText:
    """A rendered template."""

    subject: str
    text: str = field(repr=False)
    html: str | None = field(default=None, repr=False)


class MailTemplates(ABC):
    """Renders the mails of one package by name."""

    @abstractmethod
    def render(self, template: str, **values: object) -> MailText:
        """Fill the template's subject and texts; raises `LookupError` for an unknown template or a missing value."""
