"""An SMTP server that answers as it is told: a refusal, nothing at all, or plain text where TLS is due."""

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving.listener import Listener

_DEFAULT_REPLIES: Final = {
    "GREETING": "220 stub ESMTP",
    "HELO": "250 stub",
    "STARTTLS": "220 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go ahead",
    "CONTENT": "250 2.0.0 queued",
    "RSET": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}


class Command(NamedTuple):
    """A line that a client sent, and whether the connection was encrypted."""

    text: str
    encrypted: bool


@dataclass
class Session:
    """One connection, and what it has come to."""

    number: int
    encrypted: bool = False
    recipient: str = ""
    """The address of the last RCPT."""


class SmtpStub(Listener):
    """Listens on a port of 127.0.0.1; an async context manager.

    `replies` has the reply to a command (`RCPT`), to the connection (`GREETING`) or to a mail's content (`CONTENT`);
    None: no reply ever. It may be changed at any time. With a certificate (a PEM file with its key) the stub offers
    STARTTLS, or is encrypted from the start if `implicit_tls`. Without one it goes on in plain text after STARTTLS.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        replies: Mapping[str, str | None] | None = None,
        *,
        certificate: Path | None = None,
        implicit_tls: bool = False,
        extensions: tuple[str, ...] = ("SIZE 10000000", "AUTH PLAIN"),
    ) -> None:
        super().__init__(free_port())
        self.replies: dict[str, str | None] = dict(replies or {})
        self.extensions = extensions
        self.delay = 0.0
        """Seconds before each reply."""
        self.seconds_per_byte = 0.0
        self.commands: list[Command] = []
        self.mails: list[bytes] = []
        """The contents of the mails, as they were before dot-stuffing, that were accepted or left without a reply."""
        self._certificate = certificate
        self._implicit_tls = implicit_tls
        self._numbers = count()

    def url(self, scheme: str = "smtp", credentials: str = "") -> str:
        """Return the stub's address; `credentials` is `user:password@`."""
        return f"{scheme}://{credentials}{self.host}:{self.port}"

    def reply_to(self, command: str, session: Session) -> str | None:
        """Return the reply to a command in upper case; override it for replies that depend on the past."""
        if command in self.replies:
            return self.replies[command]
        if command == "EHLO":
            offers_tls = self._certificate is not None and not session.encrypted
            *lines, last = ("stub", *self.extensions, *(["STARTTLS"] if offers_tls else []))
            return "\r\n".join([*(f"250-{line}" for line in lines), f"250 {last}"])
        return _DEFAULT_REPLIES.get(command, "502 5.5.1 unknown command")

    def certificate_for(self, session: Session) -> Path | None:  # noqa: ARG002 -- for those that override it
        """Return the certificate that a session is shown."""
        return self._certificate

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except OSError:
            pass  # the client has disconnected, or refuses the certificate
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(next(self._numbers))
        if self._implicit_tls:
            await self._start_tls(writer, session)
        await self._answer(writer, self.reply_to("GREETING", session))
        while line := await reader.readline():
            text = line.decode("latin-1").rstrip("\r\n")
            command = text.partition(" ")[0].upper()
            self.commands.append(Command(text, session.encrypted))
            if command == "RCPT":
                session.recipient = "".join(re.findall(r"<(.*)>", text))
            reply = self.reply_to(command, session)
            await self._answer(writer, reply)
            if command == "DATA" and (reply or "").startswith("354"):
                await self._receive(reader, writer, session)
            if command == "STARTTLS" and (reply or "").startswith("220"):
                await self._start_tls(writer, session)
            if command == "QUIT":
                return

    async def _start_tls(self, writer: asyncio.StreamWriter, session: Session) -> None:
        certificate = self.certificate_for(session)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            await writer.start_tls(context)
            session.encrypted = True

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session) -> None:
        lines = []
        while (line := await reader.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        reply = self.reply_to("CONTENT", session)
        if reply is None or reply.startswith("250"):
            self.mails.append(b"".join(lines))
        await self._answer(writer, reply)

    async def _answer(self, writer: asyncio.StreamWriter, reply: str | None) -> None:
        if reply is None:
            await asyncio.Event().wait()  # until the session is cancelled
            return
        await asyncio.sleep(self.delay)
        data = f"{reply}\r\n".encode("latin-1")
        step = 1 if self.seconds_per_byte else len(data)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            await asyncio.sleep(self.seconds_per_byte)
