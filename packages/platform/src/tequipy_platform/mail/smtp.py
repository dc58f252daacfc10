"""Mail by SMTP."""

import asyncio
import logging
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Final, NoReturn, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
from prometheus_client import CollectorRegistry, Counter

from tequipy_observability import SpanKind, span
from tequipy_platform._clock import Clock, SystemClock
from tequipy_platform._mail import Mail, Mailer, MailRejected, MailSenderRefused, MailUnavailable
from tequipy_platform.mail.composer import ComposedMail, compose
from tequipy_platform.mail.settings import DEFAULT_PORTS, MailSettings, SmtpTls
from tequipy_platform.mail.smtp_replies import Refusal, SmtpPhase, classify, enhanced_code

_PHASES: Final = {
    aiosmtplib.SMTPAuthenticationError: SmtpPhase.AUTH,
    aiosmtplib.SMTPSenderRefused: SmtpPhase.MAIL,
    aiosmtplib.SMTPRecipientRefused: SmtpPhase.RCPT,
    aiosmtplib.SMTPDataError: SmtpPhase.DATA,
}
_QUIT_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class SmtpMailer(Mailer):
    """Sends each mail over a connection of its own, encrypted as `MailSettings.smtp_tls` says.

    `mails_total{outcome}` counts `sent`, `rejected` (this mail, final), `unavailable` and `sender_refused` (both are
    retried). The last one is also logged as an error, because an operator has to act.
    """

    def __init__(
        self, settings: MailSettings, *, clock: Clock | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        if settings.smtp_url is None:
            raise ValueError("SmtpMailer needs smtp_url")
        self._url = urlsplit(settings.smtp_url.get_secret_value())
        self._tls = settings.smtp_tls
        self._root_cert = settings.ssl_root_cert
        self._sender = settings.sender
        self._timeout = settings.timeout
        self._total_timeout = settings.total_timeout
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
            composed = compose(mail, sender=self._sender, clock=self._clock)
            with span("SMTP", kind=SpanKind.CLIENT) as step:
                step.set("server.address", self._url.hostname or "")
                await self._send(composed)
            outcome = "sent"
        except MailRejected:
            outcome = "rejected"
            raise
        except MailSenderRefused:
            outcome = "sender_refused"
            raise
        finally:
            self._outcomes.labels(outcome).inc()

    async def _send(self, composed: ComposedMail) -> None:
        client = aiosmtplib.SMTP(
            hostname=self._url.hostname,
            port=self._url.port or DEFAULT_PORTS[self._url.scheme],
            local_hostname=self._ehlo_name,
            use_tls=self._tls is SmtpTls.IMPLICIT,
            start_tls=False,  # `_converse` does it
            timeout=self._timeout,
        )
        try:
            async with asyncio.timeout(self._total_timeout):
                await self._converse(client, composed)
        except OSError as error:  # no connection, a lost one, a timeout: aiosmtplib's own errors are of this type too
            _raise_by_tls_fault(error)
            _raise_by_reply(error)
        except aiosmtplib.SMTPException as error:
            _raise_by_reply(error)
        except ValueError as error:  # a reply that cannot be decoded, such as the challenge of AUTH
            raise MailUnavailable from error
        finally:
            await _quit(client)

    async def _converse(self, client: aiosmtplib.SMTP, composed: ComposedMail) -> None:
        """Hand over one mail; nothing but EHLO precedes the encryption."""
        if self._tls is not SmtpTls.NONE:
            client.tls_context = await asyncio.to_thread(ssl.create_default_context, cafile=self._root_cert)
        await client.connect()
        await _greet(client)
        if self._tls is SmtpTls.STARTTLS:
            if not client.supports_extension("starttls"):
                _refuse_sender("starttls")  # also if an attacker has removed it from the reply (RFC 3207, section 6)
            await client.starttls()
            await _greet(client)
        if self._url.username:
            await client.login(unquote(self._url.username), unquote(self._url.password or ""))
        # `client.sendmail` would follow a refusal by RSET, and report its timeout instead of the refusal.
        size = [f"SIZE={len(composed.content)}"] if client.supports_extension("size") else []
        await client.mail(composed.sender, options=size)
        await client.rcpt(composed.recipient)
        await client.data(composed.content)


async def _greet(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()


async def _quit(client: aiosmtplib.SMTP) -> None:
    """End the session (RFC 5321, section 4.1.1.10); an error changes nothing, as the outcome of the mail is known."""
    try:
        with suppress(Exception):
            await client.quit(timeout=_QUIT_SECONDS)
    finally:
        client.close()


def _raise_by_tls_fault(error: OSError) -> None:
    """Raise `MailSenderRefused` if TLS failed; a connection that was cut meanwhile is no such fault."""
    fault = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) else error  # wrapped with smtps
    if isinstance(fault, ssl.SSLCertVerificationError):
        _refuse_sender("certificate", error)
    if isinstance(fault, ssl.SSLError) and not isinstance(fault, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        _refuse_sender("tls", error)


def _raise_by_reply(error: OSError | aiosmtplib.SMTPException) -> NoReturn:
    """Raise the port's error for a failed SMTP dialogue, and not with a reply as its cause.

    Tracebacks in logs show causes, and most servers quote the recipient in a reply.
    """
    if isinstance(error, aiosmtplib.SMTPResponseException):
        phase = next((phase for kind, phase in _PHASES.items() if isinstance(error, kind)), SmtpPhase.CONNECT)
        refusal = classify(phase, error.code, error.message)
        if refusal is Refusal.PERMANENT:
            raise MailRejected(f"The mail server refused the mail for good ({error.code}).") from None
        if refusal is Refusal.SENDER:
            _refuse_sender(phase.value, smtp_code=error.code, enhanced_code=_spell(enhanced_code(error.message)))
        raise MailUnavailable from None
    if not isinstance(error, OSError):
        # The server offers no AUTH or no common method: the settings do not fit the server.
        _refuse_sender("capabilities", error)
    raise MailUnavailable from error


def _refuse_sender(phase: str, error: Exception | None = None, **details: object) -> NoReturn:
    """Log the refusal without the server's text, which may quote the recipient, and raise `MailSenderRefused`."""
    logger.error("mail_sender_refused", extra={"phase": phase, **details})
    raise MailSenderRefused from error


def _spell(enhanced: tuple[int, int] | None) -> str | None:
    return f"5.{enhanced[0]}.{enhanced[1]}" if enhanced else None
