"""Mails, and the ports that send and render them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from tequipy_platform._errors import DomainError, Unavailable


class MailRejected(DomainError):
    """The mail will never be accepted (unknown mailbox, too large, invalid header): do not retry."""

    code = "mail_rejected"
    title = "Mail rejected"
    detail = "The mail was refused for good."


class MailUnavailable(Unavailable):
    """The mail was not accepted this time (SMTP reply 4xx, no connection): retry later."""

    code = "mail_unavailable"
    title = "Mail unavailable"
    detail = "The mail could not be handed over for the moment."


class MailSenderRefused(MailUnavailable):
    """The server refuses the sender, not this mail (credentials, relay, quota, policy): retry later, and alert."""

    code = "mail_sender_refused"
    title = "Mail sender refused"
    detail = "The mail server refuses mail from this service."


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one address.

    `message_id` is the complete Message-ID with its angle brackets (RFC 5322, section 3.6.4). It is the same at every
    attempt, so that mail programs show a mail that was sent twice only once. `repr` hides both texts, because they may
    hold a one-time token.
    """

    to: str
    subject: str
    text: str = field(repr=False)
    message_id: str
    html: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Mailer(ABC):
    """A port that sends mails."""

    @abstractmethod
    async def send(self, mail: Mail) -> None:
        """Send one mail; raises `MailRejected` (final), `MailUnavailable` or `MailSenderRefused` (retry later)."""


@dataclass(frozen=True, slots=True)
class MailText:
    """A rendered template."""

    subject: str
    text: str = field(repr=False)
    html: str | None = field(default=None, repr=False)


class MailTemplates(ABC):
    """A port that renders the mail templates of one package."""

    @abstractmethod
    def render(self, template: str, **values: object) -> MailText:
        """Render subject and texts; raises `LookupError` for an unknown template or a missing value."""
