"""A mailer that sends nothing."""

import re
from types import TracebackType
from typing import Self

from tequipy_platform._mail import Mail, Mailer, MailRejected

_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\"\\]+@[^\s@<>()\[\],;:\"\\]+")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")


class RecordingMailer(Mailer):
    """Records sent mails; refuses the headers that real mailers refuse."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def send(self, mail: Mail) -> None:
        """Record one mail."""
        headers = (mail.subject, *mail.headers, *mail.headers.values())
        if not _ADDRESS.fullmatch(mail.to) or not _MESSAGE_ID.fullmatch(mail.message_id):
            raise MailRejected
        if any(character in header for header in headers for character in "\r\n\0"):
            raise MailRejected
        self.mails.append(mail)
