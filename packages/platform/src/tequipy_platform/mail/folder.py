"""Mails written into a folder, for machines without an SMTP server."""

import asyncio
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tequipy_platform._clock import Clock, SystemClock
from tequipy_platform._mail import Mail, Mailer, MailUnavailable
from tequipy_platform.mail.composer import compose
from tequipy_platform.mail.settings import MailSettings


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
