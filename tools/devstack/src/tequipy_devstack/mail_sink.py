"""The mail sink: an SMTP server that delivers nothing and stores each mail as an `.eml` file."""

import email
import email.policy
import re
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tequipy_devstack.ports import free_port


class MailSink:
    """An SMTP server on 127.0.0.1 in a thread of its own, which runs while the context manager is entered."""

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._controller = Controller(self, hostname=self.host, port=self.port)

    @property
    def url(self) -> str:
        """The sink's address, `smtp://host:port`."""
        return f"smtp://{self.host}:{self.port}"

    def messages(self, to: str | None = None) -> list[EmailMessage]:
        """Return the stored mails, oldest first; with `to`, only those whose To header contains that address."""
        files = sorted(self.folder.glob("*.eml"))
        mails = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
        return [mail for mail in mails if to is None or to in str(mail["To"])]

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's name
        """Store one mail; called by aiosmtpd."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        recipient = re.sub(r"[^\w@.+-]", "_", ",".join(envelope.rcpt_tos))[:150]
        file = self.folder / f"{now}-{recipient}.eml"
        # Renamed when it is complete, so that readers never see an incomplete mail.
        draft = file.with_suffix(".new")
        draft.write_bytes(envelope.original_content or b"")
        draft.replace(file)
        return "250 OK"

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._controller.stop()
