"""Mail by SMTP, or into a folder if no server is configured, and rendering of mail templates."""

import asyncio
import logging
import re
import ssl
import tempfile
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
from jinja2 import (
    Environment,
    PackageLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    select_autoescape,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from tequipy_platform.domain.clock import Clock, SystemClock
from tequipy_platform.domain.mail import (
    Mail,
    Mailer,
    MailRejected,
    MailSenderRefused,
    MailTemplates,
    MailText,
    MailUnavailable,
)
from tequipy_platform.domain.smtp_replies import Refusal, SmtpPhase, classify, enhanced_code
from tequipy_platform.infrastructure.mail_composer import compose, read_sender
from tequipy_platform.infrastructure.settings import split_url

_SCHEMES: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PHASES: Final = {
    aiosmtplib.SMTPAuthenticationError: SmtpPhase.AUTH,
    aiosmtplib.SMTPSenderRefused: SmtpPhase.MAIL,
    aiosmtplib.SMTPRecipientRefused: SmtpPhase.RCPT,
    aiosmtplib.SMTPDataError: SmtpPhase.DATA,
}

logger = logging.getLogger("tequipy.mail")


class MailSettings(BaseModel):
    """The sender, and the server that mails are sent through; without a server they are written as `.eml` files."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    smtp_url: SecretStr | None = None
    """`smtp://` (no encryption), `smtp+starttls://` or `smtps://`, then `user:password@host:port`."""
    sender: str = "Tequipy <no-reply@localhost>"
    folder: Path = Path("mail")
    """The folder for mails if `smtp_url` is not set."""
    timeout: float = Field(default=10, gt=0)
    """Seconds for each step of the SMTP dialogue."""
    ehlo_name: str | None = None
    """The client's name in EHLO (RFC 5321, section 4.1.1.1): a domain, or `[192.0.2.1]`; None: this machine's name.
    Some servers refuse a name that does not resolve to the client's address."""

    @field_validator("smtp_url")
    @classmethod
    def _check_url(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and split_url(secret).scheme not in _SCHEMES:
            raise PydanticCustomError("url_scheme", "URL scheme should be smtp, smtp+starttls or smtps")
        if secret is not None and not split_url(secret).hostname:
            raise PydanticCustomError("url_host", "URL should name a host")
        return secret

    @field_validator("sender")
    @classmethod
    def _check_sender(cls, sender: str) -> str:
        try:
            read_sender(sender)
        except MailRejected as error:
            raise PydanticCustomError("address", "should be one address: Name <name@example.com>") from error
        return sender

    @field_validator("ehlo_name")
    @classmethod
    def _check_ehlo_name(cls, name: str | None) -> str | None:
        if name is None or _HOST_NAME.fullmatch(name) or _is_address_literal(name):
            return name
        raise PydanticCustomError("ehlo_name", "should be a host name or an address literal as [192.0.2.1]")

    def production_faults(self) -> list[tuple[str, str]]:
        """Require a server in production."""
        return [] if self.smtp_url else [("smtp_url", "is required in production: mails in a folder are not sent")]


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
                port=self._url.port or _SCHEMES[self._url.scheme],
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


class FolderMailer(Mailer):
    """Writes each mail as an `.eml` file, completely or not at all; the Message-ID determines the file's name."""

    def __init__(self, settings: MailSettings, *, clock: Clock | None = None) -> None:
        self._folder = settings.folder
        self._sender = settings.sender
        self._clock = clock or SystemClock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: no file stays open between mails."""

    async def send(self, mail: Mail) -> None:
        """Write one mail; raises `MailUnavailable` when the folder cannot be written to."""
        message = compose(mail, sender=self._sender, clock=self._clock)
        name = re.sub(r"[^A-Za-z0-9@._-]", "_", mail.message_id.strip("<>")).lstrip(".")
        try:
            await asyncio.to_thread(self._write, f"{name}.eml", message.content)
        except OSError as error:
            raise MailUnavailable from error

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Written to a temporary file and renamed, so that readers of *.eml never see an incomplete mail.
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as part:
            part.write(content)
        Path(part.name).replace(self._folder / name)


class JinjaMailTemplates(MailTemplates):
    """Renders a package's mail templates in a sandbox; a template that names a missing value is an error.

    `<name>.txt` has the blocks `subject` and `text`. The optional `<name>.html` is the HTML text; its values are
    escaped.
    """

    def __init__(self, package_name: str, folder: str = "templates") -> None:
        self._environment: Environment = ImmutableSandboxedEnvironment(
            loader=PackageLoader(package_name, folder),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"], default=False),
            trim_blocks=True,
        )

    def render(self, template: str, **values: object) -> MailText:
        """Render a template; raises `LookupError` for an unknown template, a missing block or a missing value."""
        try:
            plain = self._environment.get_template(f"{template}.txt")
            html = self._environment.get_or_select_template([f"{template}.html", plain])
            return MailText(
                subject=_block(plain, "subject", values).strip(),
                text=_block(plain, "text", values).strip() + "\n",
                html=html.render(values) if html is not plain else None,
            )
        except TemplateNotFound as error:
            raise LookupError(f"no mail template {template!r}") from error
        except TemplateError as error:
            raise LookupError(f"mail template {template!r}: {error.message}") from error


def _block(template: Template, name: str, values: Mapping[str, object]) -> str:
    if name not in template.blocks:
        raise LookupError(f"mail template {template.name!r} has no block {name!r}")
    return "".join(template.blocks[name](template.new_context(dict(values))))


def _is_address_literal(name: str) -> bool:
    """Return whether the text is `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321, section 4.1.3)."""
    if not (name.startswith("[") and name.endswith("]")):
        return False
    try:
        ip_address(name[1:-1].removeprefix("IPv6:"))
    except ValueError:
        return False
    return True


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
