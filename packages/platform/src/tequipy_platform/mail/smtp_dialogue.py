"""The SMTP dialogue that hands over one mail, by aiosmtplib."""

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import Final, NoReturn
from urllib.parse import SplitResult, unquote

import aiosmtplib

from tequipy_platform._mail import MailRejected, MailSenderRefused, MailUnavailable
from tequipy_platform.mail.composer import ComposedMail
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


async def deliver(settings: MailSettings, url: SplitResult, composed: ComposedMail) -> None:
    """Send one mail over a connection of its own; raises the port's errors."""
    client = aiosmtplib.SMTP(
        hostname=url.hostname,
        port=url.port or DEFAULT_PORTS[url.scheme],
        local_hostname=settings.ehlo_name,
        use_tls=settings.smtp_tls is SmtpTls.IMPLICIT,
        start_tls=False,  # `_converse` does it
        timeout=settings.timeout,
    )
    try:
        async with asyncio.timeout(settings.total_timeout):
            await _converse(client, settings, url, composed)
    except OSError as error:  # no connection, a lost one, a timeout: aiosmtplib's own errors are of this type too
        _raise_by_tls_fault(error)
        _raise_by_reply(error)
    except aiosmtplib.SMTPException as error:
        _raise_by_reply(error)
    except ValueError as error:  # a reply that cannot be decoded, such as the challenge of AUTH
        raise MailUnavailable from error
    finally:
        await _quit(client)


async def _converse(client: aiosmtplib.SMTP, settings: MailSettings, url: SplitResult, composed: ComposedMail) -> None:
    """Hand over one mail; nothing but EHLO precedes the encryption."""
    if settings.smtp_tls is not SmtpTls.NONE:
        client.tls_context = await asyncio.to_thread(ssl.create_default_context, cafile=settings.ssl_root_cert)
    await client.connect()
    await _greet(client)
    if settings.smtp_tls is SmtpTls.STARTTLS:
        if not client.supports_extension("starttls"):
            _refuse_sender("starttls")  # also if an attacker has removed it from the reply (RFC 3207, section 6)
        await client.starttls()
        await _greet(client)
    if url.username:
        await client.login(unquote(url.username), unquote(url.password or ""))
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
