"""Composes mails as RFC 5322 messages: long fields are folded, and only text that is not plain ASCII is encoded.

The header fields are written here and not by `email`: its policies decode `=?utf-8?q?a?=` in an address or a subject,
and they encode every word that is longer than a line, even an identifier.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.errors import MessageError
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Final

from tequipy_observability import CORRELATION_HEADER, current_context
from tequipy_platform._clock import Clock
from tequipy_platform._mail import Mail, MailRejected

_LONGEST_LINE: Final = 998  # RFC 5322, section 2.1.1
_LINE: Final = 78
_LONGEST_WORD: Final = _LONGEST_LINE - 100
"""The longest word that is not encoded; its line must have room for the field's name too."""
_ATEXT: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL_PART: Final = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_ATOMS: Final = re.compile(rf"{_ATEXT}(?: {_ATEXT})*")
_FIELD_NAME: Final = re.compile(r"[!-9;-~]+")
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_UNENCODED: Final = re.compile(r"(?!From )(?:[\t -~]{0,997}[!-~])?")
"""A line that is sent as it is: printable ASCII within the limit, without white space at its end."""
_ENCODED_LINE: Final = 74
"""Two less than RFC 2045 (section 6.7) allows, so that `=46rom` has room for `From`."""
_FORBIDDEN: Final = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class ComposedMail:
    """A message, and the sender and recipient of the SMTP envelope (RFC 5321, section 2.3.1)."""

    sender: str
    recipient: str
    content: bytes = field(repr=False)


def compose(mail: Mail, *, sender: str, clock: Clock) -> ComposedMail:
    """Compose a mail; raises `MailRejected` for an invalid address or a header that cannot be sent."""
    name, sender_address = read_sender(sender)
    context = current_context()
    correlation = {CORRELATION_HEADER: context.correlation_id} if context.correlation_id else {}
    try:
        recipient = read_address(mail.to)
        if not _MESSAGE_ID.fullmatch(mail.message_id):
            raise MailRejected("The Message-ID of the mail is not valid.")
        fields = {
            "From": f"{_phrase('From', name)} <{sender_address}>" if name else sender_address,
            "To": recipient,
            "Message-ID": mail.message_id,
            "Date": format_datetime(clock.now()),
            "Subject": _unstructured("Subject", mail.subject),
            "Auto-Submitted": "auto-generated",  # RFC 3834: no out-of-office answers
            **correlation,
        }
        _check_names(mail.headers, fields)
        fields |= {name: _unstructured(name, value) for name, value in mail.headers.items()}
        head = b"".join(_folded(name, value) for name, value in fields.items())
        return ComposedMail(sender_address, recipient, head + _body(mail))
    except (ValueError, MessageError) as error:
        raise MailRejected("A header or a text of the mail cannot be sent.") from error


def read_sender(text: str) -> tuple[str, str]:
    """Return name and address of `Name <name@example.com>`; raises `MailRejected` for any other form."""
    name, address = parseaddr(text)
    if _FORBIDDEN.search(text) or "," in address:
        raise MailRejected("The address of the mail is not valid.")
    return name, read_address(address)


def read_address(text: str) -> str:
    """Return an address with its domain in ASCII; raises `MailRejected` unless the text is exactly one address.

    The domain is encoded by IDNA 2008 (RFC 5891). Python's own codec implements IDNA 2003, which maps straße.de to the
    different domain strasse.de. The local part must be ASCII (SMTPUTF8 is not used).
    """
    import idna  # noqa: PLC0415 -- most processes send no mail

    local, _, domain = text.rpartition("@")
    try:
        ascii_domain = idna.encode(domain, uts46=True).decode("ascii")
    except ValueError:
        # Without its cause, which quotes the domain, for tracebacks in logs show causes.
        raise MailRejected("The address of the mail is not valid.") from None
    if not _LOCAL_PART.fullmatch(local):
        raise MailRejected("The address of the mail is not valid.")
    return f"{local}@{ascii_domain}"


def _check_names(more: Mapping[str, str], fields: Mapping[str, str]) -> None:
    taken = {name.lower() for name in fields} | {"mime-version"}
    for name in more:
        if not _FIELD_NAME.fullmatch(name) or name.lower() in taken or name.lower().startswith("content-"):
            raise MailRejected("A header of the mail is no name, or is set already.")


def _unstructured(name: str, text: str) -> str:
    """Return a text as a field's value; raises `ValueError` for a line break, NUL or a lone surrogate."""
    return text if _is_plain(text) else _encoded(name, text)


def _phrase(field_name: str, name: str) -> str:
    """Return a display name in the form in which it precedes an address."""
    if not _is_plain(name):
        return _encoded(field_name, name)
    if _ATOMS.fullmatch(name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def _is_plain(text: str) -> bool:
    """Return whether a text needs no encoding: printable ASCII, single spaces, nothing that looks encoded."""
    printable = text.isascii() and text.isprintable()
    words = text.split(" ")
    return printable and "=?" not in text and (text == "" or all(0 < len(word) <= _LONGEST_WORD for word in words))


def _encoded(name: str, text: str) -> str:
    if _FORBIDDEN.search(text):
        raise ValueError("a line break or NUL in a header")
    # Always as UTF-8, so that ASCII text that looks encoded is encoded too.
    return Header(text, "utf-8", maxlinelen=_LINE - 3, header_name=name).encode(linesep="").strip(" ")


def _folded(name: str, value: str) -> bytes:
    """Return a field in lines of at most 78 characters, folded only between words; a longer word exceeds the limit.

    There is no fold directly after the field's name, because some readers count its space as part of the value.
    """
    first, *words = value.split(" ")
    lines = [f"{name}: {first}"]
    for word in words:
        if len(lines[-1]) + len(word) >= _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "".join(f"{line.rstrip()}\r\n" for line in lines).encode("ascii")


def _body(mail: Mail) -> bytes:
    """Return the texts with their MIME fields, after the empty line that ends the header.

    No relay has a reason to change it, which would break a DKIM signature (RFC 6376, section 5.3).
    """
    from email.policy import SMTP  # noqa: PLC0415 -- it imports half of `email`, also into processes that send no mail

    message = EmailMessage(policy=SMTP.clone(max_line_length=_ENCODED_LINE))
    message.set_content(mail.text, cte=_transfer_encoding(mail.text))
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html", cte=_transfer_encoding(mail.html))
    # A mailbox in the format mbox quotes such lines. Only a text that is quoted-printable has them.
    return re.sub(rb"(?m)^From ", b"=46rom ", message.as_bytes())


def _transfer_encoding(text: str) -> str:
    """Return the encoding of a text: none if possible, because quoted-printable breaks links in the raw mail.

    It is never 8bit, which relays without 8BITMIME re-encode.
    """
    return "7bit" if all(map(_UNENCODED.fullmatch, re.split(r"\r\n|\r|\n", text))) else "quoted-printable"
