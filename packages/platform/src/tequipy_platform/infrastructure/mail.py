"""Mail by SMTP, or into a folder where there is no server, and the templates it is rendered from."""

import asyncio
import re
import ssl
import tempfile
from collections.abc import Mapping
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
import idna
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
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from tequipy_observability import CORRELATION_HEADER, current_context
from tequipy_platform.domain.clock import Clock, SystemClock
from tequipy_platform.domain.mail import Mail, Mailer, MailRejected, MailTemplates, MailText, MailUnavailable
from tequipy_platform.infrastructure.settings import split_url

_SCHEMES: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_PERMANENT: Final = 500  # RFC 5321, section 4.2.1
_LONGEST_LINE: Final = 998  # RFC 5322, section 2.1.1


class MailSettings(BaseModel):
    """Who sends mails and by which server; without a server they go to a folder as `.eml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    smtp_url: SecretStr | None = None
    """`smtp://` (no encryption), `smtp+starttls://` or `smtps://`, then `user:password@host:port`."""
    sender: str = "Tequipy <no-reply@localhost>"
    folder: Path = Path("mail")
    """Where mails go without `smtp_url`."""
    timeout: float = Field(default=10, gt=0)
    """Seconds for each step of the conversation."""

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
            _address(sender)
        except MailRejected as error:
            raise PydanticCustomError("address", "should be one address: Name <name@example.com>") from error
        return sender

    def production_faults(self) -> list[tuple[str, str]]:
        """Production sends its mails."""
        return [] if self.smtp_url else [("smtp_url", "is required in production: mails in a folder reach nobody")]


class SmtpMailer(Mailer):
    """Hands each mail to the server over a connection of its own."""

    def __init__(self, settings: MailSettings, *, clock: Clock | None = None) -> None:
        if settings.smtp_url is None:
            raise ValueError("SmtpMailer needs smtp_url")
        self._url = urlsplit(settings.smtp_url.get_secret_value())
        self._sender = settings.sender
        self._timeout = settings.timeout
        self._clock = clock or SystemClock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing stays open between mails."""

    async def send(self, mail: Mail) -> None:
        """Hand one mail over; a 5xx is `MailRejected`, a 4xx and everything about the connection `MailUnavailable`."""
        message = compose(mail, sender=self._sender, clock=self._clock)
        try:
            await aiosmtplib.send(
                message,
                hostname=self._url.hostname,
                port=self._url.port or _SCHEMES[self._url.scheme],
                username=unquote(self._url.username) if self._url.username else None,
                password=unquote(self._url.password) if self._url.password else None,
                use_tls=self._url.scheme == "smtps",
                start_tls=self._url.scheme == "smtp+starttls",
                timeout=self._timeout,
            )
        except aiosmtplib.SMTPException as error:
            _raise_by_code(error)
        except (OSError, ssl.SSLError) as error:
            raise MailUnavailable from error


class FolderMailer(Mailer):
    """Writes each mail as an `.eml` file, whole or not at all; the same Message-ID is the same file."""

    def __init__(self, settings: MailSettings, *, clock: Clock | None = None) -> None:
        self._folder = settings.folder
        self._sender = settings.sender
        self._clock = clock or SystemClock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing stays open between mails."""

    async def send(self, mail: Mail) -> None:
        """Write one mail; raises `MailUnavailable` when the folder cannot be written to."""
        message = compose(mail, sender=self._sender, clock=self._clock)
        name = re.sub(r"[^A-Za-z0-9@._-]", "_", mail.message_id.strip("<>")).lstrip(".")
        try:
            await asyncio.to_thread(self._write, f"{name}.eml", message.as_bytes())
        except OSError as error:
            raise MailUnavailable from error

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: whoever watches the folder for *.eml never reads half a mail.
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as part:
            part.write(content)
        Path(part.name).replace(self._folder / name)


class JinjaMailTemplates(MailTemplates):
    """A package's mail templates, sandboxed, with every value they name required.

    `<name>.txt` holds the blocks `subject` and `text`; an optional `<name>.html` is the HTML text, its values escaped.
    """

    def __init__(self, package_name: str, folder: str = "templates") -> None:
        self._environment: Environment = ImmutableSandboxedEnvironment(
            loader=PackageLoader(package_name, folder),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"], default=False),
            trim_blocks=True,
        )

    def render(self, template: str, **values: object) -> MailText:
        """Fill a template; raises `LookupError` for an unknown template, a missing block or a missing value."""
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


def compose(mail: Mail, *, sender: str, clock: Clock) -> EmailMessage:
    """Return the mail as a message (RFC 5322); raises `MailRejected` for a header that is none (CR, LF, no address)."""
    message = EmailMessage(policy=SMTP)
    context = current_context()
    headers: Mapping[str, str] = {
        "Message-ID": mail.message_id,
        "Date": format_datetime(clock.now()),
        "Subject": mail.subject,
        "Auto-Submitted": "auto-generated",  # RFC 3834: no out-of-office answers
        **({CORRELATION_HEADER: context.correlation_id} if context.correlation_id else {}),
        **mail.headers,
    }
    message["From"] = _address(sender)
    message["To"] = _address(mail.to)
    try:
        for name, value in headers.items():
            message[name] = value
        # Plain text where it is plain: quoted-printable would break a link over lines in the raw mail.
        message.set_content(mail.text, cte="7bit" if _is_plain(mail.text) else "quoted-printable")
        if mail.html is not None:
            message.add_alternative(mail.html, subtype="html")
    except (ValueError, MessageError) as error:
        raise MailRejected("A header of the mail is not valid: it holds a line break or a second value.") from error
    return message


def _address(text: str) -> Address:
    """Read exactly one address; its domain in ASCII (IDNA), its local part ASCII already (no SMTPUTF8)."""
    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if not at or "," in address or any(character in text for character in "\r\n\0"):
        raise MailRejected("The address of the mail is not valid.")
    try:
        # IDNA 2008 (RFC 5891): Python's own codec is of 2003, where straße.de is somebody else's strasse.de.
        ascii_domain = idna.encode(domain, uts46=True).decode("ascii")
        return Address(display_name=name, addr_spec=f"{local}@{ascii_domain}")
    except (ValueError, MessageError) as error:
        raise MailRejected("The address of the mail is not valid.") from error


def _block(template: Template, name: str, values: Mapping[str, object]) -> str:
    if name not in template.blocks:
        raise LookupError(f"mail template {template.name!r} has no block {name!r}")
    return "".join(template.blocks[name](template.new_context(dict(values))))


def _is_plain(text: str) -> bool:
    return text.isascii() and max(map(len, text.splitlines()), default=0) <= _LONGEST_LINE


def _raise_by_code(error: aiosmtplib.SMTPException) -> None:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    # Only an answer to the mail is final: a wrong password or greeting is the operator's to mend, and the mail waits.
    about_the_mail = (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError)
    if isinstance(error, about_the_mail) and error.code >= _PERMANENT:
        raise MailRejected(f"The mail server refused the mail for good ({error.code}).") from error
    raise MailUnavailable from error
