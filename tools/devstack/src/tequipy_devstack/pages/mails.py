"""Mails of the mail sink as pages show them: any bytes that were sent, never an error."""

import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from functools import lru_cache
from pathlib import Path
from typing import Final

from tequipy_observability import CORRELATION_HEADER

MAX_SHOWN: Final = 1024 * 1024
"""The number of bytes, or characters of one part, that a page shows."""

MAX_MAILS: Final = 5000
"""The number of mails, the newest ones, that are searched."""

_HEAD_BYTES: Final = 64 * 1024
_TIME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}")


@dataclass(frozen=True)
class Head:
    """What the list shows of a mail."""

    name: str
    """The name of its file."""
    received: str
    sender: str
    recipients: str
    subject: str
    correlation_id: str


@dataclass(frozen=True)
class Attachment:
    """A part that is neither the text nor the HTML of a mail."""

    name: str
    content_type: str
    size: int


@dataclass(frozen=True)
class Mail:
    """What the page of a mail shows."""

    head: Head
    text: str
    html: str
    attachments: tuple[Attachment, ...]
    note: str = ""
    """Why the mail is shown as its source, or in part."""


def newest_first(folder: Path, *, address: str = "", correlation_id: str = "") -> Iterator[Head]:
    """Yield the mails of a folder whose sender or recipients contain `address`, any case, and that have the id."""
    files = sorted(folder.glob("*.eml"), key=lambda file: file.name, reverse=True)
    for file in files[:MAX_MAILS]:
        try:
            head = _read_head(file)
        except OSError:  # removed meanwhile
            continue
        if address.casefold() not in f"{head.sender}\n{head.recipients}".casefold():
            continue
        if correlation_id in {"", head.correlation_id}:
            yield head


def find(folder: Path, name: str) -> Mail | None:
    """Return the mail in the file of this name, or None if there is none."""
    file = folder / name
    if file.name != name or file.suffix != ".eml" or not file.is_file():
        return None
    head = _read_head(file)
    with file.open("rb") as stream:
        source = stream.read(10 * MAX_SHOWN + 1)
    if len(source) > 10 * MAX_SHOWN:
        return Mail(head, _decode(source), "", (), f"Only the beginning of {file.stat().st_size:,} bytes is shown.")
    try:
        return _parse(head, source)
    except Exception:  # noqa: BLE001 -- the parser of the standard library fails in many ways at malformed mails
        return Mail(head, _decode(source), "", (), "The mail is malformed, and shown as it was sent.")


@lru_cache(MAX_MAILS)
def _read_head(file: Path) -> Head:
    with file.open("rb") as stream:
        source = stream.read(_HEAD_BYTES)
    message = BytesHeaderParser(policy=email.policy.default).parsebytes(source)
    time = _TIME.match(file.name)
    received = datetime.strptime(time[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC) if time else None
    return Head(
        file.name,
        f"{received:%Y-%m-%d %H:%M:%S} UTC" if received else "",
        *(_header(message, name) for name in ("From", "To", "Subject", CORRELATION_HEADER)),
    )


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message[name] or "")[:1000]
    except Exception:  # noqa: BLE001 -- as above
        return "(unreadable)"


def _parse(head: Head, source: bytes) -> Mail:
    message = BytesParser(policy=email.policy.default).parsebytes(source)
    texts: dict[str, str] = {}
    attachments = []
    for part in message.walk():
        if part.is_multipart():
            continue
        kind, content = part.get_content_type(), part.get_payload(decode=True)
        data = content if isinstance(content, bytes) else b""
        if kind in {"text/plain", "text/html"} and kind not in texts and not part.is_attachment():
            texts[kind] = _decode(data, part.get_content_charset())
        else:
            attachments.append(Attachment(str(part.get_filename() or "(no name)")[:200], kind, len(data)))
    return Mail(head, texts.get("text/plain", ""), texts.get("text/html", ""), tuple(attachments))


def _decode(data: bytes, charset: str | None = None) -> str:
    try:
        text = data.decode(charset or "utf-8", "replace")
    except LookupError:  # an unknown charset
        text = data.decode("utf-8", "replace")
    return text[:MAX_SHOWN]
