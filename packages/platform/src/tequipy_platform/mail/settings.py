"""Settings of mail: the sender, and the SMTP server or the folder."""

import re
import ssl
from collections.abc import Mapping
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from tequipy_platform._mail import MailRejected
from tequipy_platform.mail.composer import read_sender
from tequipy_platform.settings.urls import split_url

DEFAULT_PORTS: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
"""The schemes of an SMTP URL, and the port of each."""
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


class SmtpTls(Enum):
    """How a connection to the server is encrypted."""

    NONE = "none"
    STARTTLS = "starttls"
    """Begins in plain text and is upgraded before anything but EHLO is sent (RFC 3207); required, never optional."""
    IMPLICIT = "implicit"
    """Encrypted from its first byte (RFC 8314)."""


class MailSettings(BaseModel):
    """The sender, and the server that mails are sent through; without a server they are written as `.eml` files."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {
        "smtp_url": "is required in production: mails in a folder are not sent"
    }

    smtp_url: SecretStr | None = None
    """`smtps://` (TLS from the start), `smtp+starttls://`, or `smtp://`, then `user:password@host:port`. The last one
    requires STARTTLS too, unless the server is on this machine or `allow_unencrypted` is set."""
    allow_unencrypted: bool = False
    """Do not encrypt connections of `smtp://`: everybody between this machine and the server can read the password, the
    mails and the links in them. For a relay in a private network that offers no TLS."""
    ssl_root_cert: FilePath | None = None
    """PEM file of the trusted authorities; None: those of the system."""
    sender: str = "Tequipy <no-reply@localhost>"
    """The address in From of all mails, with a name: `Name <name@example.com>`."""
    folder: Path = Path("mail")
    """The folder for mails if `smtp_url` is not set."""
    templates: Path | None = None
    """A folder with templates of this deployment, which replace those of the packages. None: all mails look as
    the packages define them."""
    timeout: float = Field(default=10, gt=0)
    """Seconds for each step of the SMTP dialogue."""
    total_timeout: float = Field(default=20, gt=0, le=25)
    """Seconds for the whole dialogue; below the time limit of the task that sends mails (30 s)."""
    ehlo_name: str | None = None
    """The client's name in EHLO (RFC 5321, section 4.1.1.1): a domain, or `[192.0.2.1]`; None: this machine's name.
    Some servers refuse a name that does not resolve to the client's address."""

    @field_validator("smtp_url")
    @classmethod
    def _check_url(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and split_url(secret).scheme not in DEFAULT_PORTS:
            raise PydanticCustomError("url_scheme", "URL scheme should be smtp, smtp+starttls or smtps")
        if secret is not None and not split_url(secret).hostname:
            raise PydanticCustomError("url_host", "URL should name a host")
        return secret

    @field_validator("ssl_root_cert")
    @classmethod
    def _check_root_cert(cls, path: Path | None) -> Path | None:
        try:
            ssl.create_default_context(cafile=path)
        except OSError:  # `ssl.SSLError` is a subclass
            raise PydanticCustomError("certificate", "should be a readable file of PEM certificates") from None
        return path

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

    @property
    def smtp_tls(self) -> SmtpTls:
        """How connections to the server of `smtp_url` are encrypted."""
        url = split_url(self.smtp_url or SecretStr(""))
        if url.scheme == "smtps":
            return SmtpTls.IMPLICIT
        if url.scheme == "smtp" and (self.allow_unencrypted or _is_this_machine(url.hostname or "")):
            return SmtpTls.NONE
        return SmtpTls.STARTTLS

    def production_faults(self) -> list[tuple[str, str]]:
        """Require a server in production."""
        return [] if self.smtp_url else [("smtp_url", self.production_rules["smtp_url"])]


def _is_this_machine(host: str) -> bool:
    """Return whether a host is this machine whatever DNS says: `localhost`, or a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address_literal(name: str) -> bool:
    """Return whether the text is `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321, section 4.1.3)."""
    if not (name.startswith("[") and name.endswith("]")):
        return False
    try:
        ip_address(name[1:-1].removeprefix("IPv6:"))
    except ValueError:
        return False
    return True
