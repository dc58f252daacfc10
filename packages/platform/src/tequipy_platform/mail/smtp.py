"""Mail by SMTP."""

import logging
import ssl
from types import TracebackType
from typing import Final, NoReturn, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
from prometheus_client import CollectorRegistry, Counter

from tequipy_platform._clock import Clock, SystemClock
from tequipy_platform._mail import Mail, Mailer, MailRejected, MailSenderRefused, MailUnavailable
from tequipy_platform.mail.composer import compose
from tequipy_platform.mail.settings import DEFAULT_PORTS, MailSettings
from tequipy_platform.mail.smtp_replies import Refusal, SmtpPhase, classify, enhanced_code

_PHASES: Final = {
    aiosmtplib.SMTPAuthenticationError: SmtpPhase.AUTH,
    aiosmtplib.SMTPSenderRefused: SmtpPhase.MAIL,
    aiosmtplib.SMTPRecipientRefused: SmtpPhase.RCPT,
    aiosmtplib.SMTPDataError: SmtpPhase.DATA,
}

logger = logging.getLogger(__name__)


class SmtpMailer(Mailer):
    """Sends each mail over a connection of its own.

    `mails_total{outcome}` counts `sent`, `rejected` (this mail, final), `unavailable` and `sender_refused` (both are
    retried). The last one is also logged as an error, because an operator has to act.
    """

    def __init__(
        self, settings: MailSettings, *, clock: Clock | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        if settings.smtp_url is None:
            raise ValueError("SmtpMailer needs smtp_url")
        self._url = urlsplit(settings.smtp_url.get_secret_value())
        self._sender = settings.sender
        self._timeout = settings.timeout
        self._ehlo_name = settings.ehlo_name
        self._clock = clock or SystemClock()
        self._outcomes = Counter("mails", "Mails handed to the server, by outcome.", ["outcome"], registry=registry)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: no connection stays open between mails."""

    async def send(self, mail: Mail) -> None:
        """Send one mail; `classify` decides what a refusal concerns."""
        outcome = "unavailable"
        try:
            await self._send(mail)
            outcome = "sent"
        except MailRejected:
            outcome = "rejected"
            raise
        except MailSenderRefused:
            outcome = "sender_refused"
            raise
        finally:
            self._outcomes.labels(outcome).inc()

    async def _send(self, mail: Mail) -> None:
        composed = compose(mail, sender=self._sender, clock=self._clock)
        try:
            await aiosmtplib.send(
                composed.content,
                sender=composed.sender,
                recipients=[composed.recipient],
                hostname=self._url.hostname,
                port=self._url.port or DEFAULT_PORTS[self._url.scheme],
                local_hostname=self._ehlo_name,
                username=unquote(self._url.username) if self._url.username else None,
                password=unquote(self._url.password) if self._url.password else None,
                use_tls=self._url.scheme == "smtps",
                start_tls=self._url.scheme == "smtp+starttls",
                timeout=self._timeout,
            )
        except ssl.SSLCertVerificationError as error:
            _refuse_sender("certificate", error)
        except OSError as error:  # no connection, a lost one, a timeout: aiosmtplib's own errors are of this type too
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):  # aiosmtplib wraps it with smtps
                _refuse_sender("certificate", error)
            _raise_by_reply(error)
        except aiosmtplib.SMTPException as error:
            _raise_by_reply(error)


def _raise_by_reply(error: OSError | aiosmtplib.SMTPException) -> NoReturn:
    """Raise the port's error for a failed SMTP dialogue."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        phase = next((phase for kind, phase in _PHASES.items() if isinstance(error, kind)), SmtpPhase.CONNECT)
        refusal = classify(phase, error.code, error.message)
        if refusal is Refusal.PERMANENT:
            raise MailRejected(f"The mail server refused the mail for good ({error.code}).") from error
        if refusal is Refusal.SENDER:
            _refuse_sender(phase.value, error, smtp_code=error.code, enhanced_code=_spell(enhanced_code(error.message)))
    elif not isinstance(error, OSError):
        # The server offers no STARTTLS, no AUTH or no common method: the settings do not fit the server.
        _refuse_sender("capabilities", error)
    raise MailUnavailable from error


def _refuse_sender(phase: str, error: Exception, **details: object) -> NoReturn:
    """Log the refusal without the server's text, which may quote the recipient, and raise `MailSenderRefused`."""
    logger.error("mail_sender_refused", extra={"phase": phase, **details})
    raise MailSenderRefused from error


def _spell(enhanced: tuple[int, int] | None) -> str | None:
    return f"5.{enhanced[0]}.{enhanced[1]}" if enhanced else None
