"""An SMTP server that answers as it is told: a refusal, nothing at all, or plain text where TLS is due."""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from tequipy_devstack.ports import free_port

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


class SmtpStub:
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
        self.port = free_port()
        self.replies: dict[str, str | None] = dict(replies or {})
        self.extensions = extensions
        self.delay = 0.0
        """Seconds before each reply."""
        self.seconds_per_byte = 0.0
        self.commands: list[Command] = []
        self.mails: list[bytes] = []
        """The contents of the accepted mails, as they were before dot-stuffing."""
        self._implicit_tls = implicit_tls
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    def url(self, scheme: str = "smtp", credentials: str = "") -> str:
        """Return the stub's address; `credentials` is `user:password@`."""
        return f"{scheme}://{credentials}{self.host}:{self.port}"

    def reply_to(self, command: str, *, encrypted: bool) -> str | None:
        """Return the reply to a command in upper case; override it for replies that depend on the past."""
        if command in self.replies:
            return self.replies[command]
        if command == "EHLO":
            offers_tls = self._tls is not None and not encrypted
            *lines, last = ("stub", *self.extensions, *(["STARTTLS"] if offers_tls else []))
            return "\r\n".join([*(f"250-{line}" for line in lines), f"250 {last}"])
        return _DEFAULT_REPLIES.get(command, "502 5.5.1 unknown command")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(self._serve(reader, writer))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except OSError:
            pass  # the client has disconnected, or refuses the certificate
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        encrypted = self._implicit_tls and self._tls is not None
        if encrypted and self._tls is not None:
            await writer.start_tls(self._tls)
        await self._answer(writer, self.reply_to("GREETING", encrypted=encrypted))
        while line := await reader.readline():
            text = line.decode("latin-1").rstrip("\r\n")
            command = text.partition(" ")[0].upper()
            self.commands.append(Command(text, encrypted))
            reply = self.reply_to(command, encrypted=encrypted)
            await self._answer(writer, reply)
            if command == "DATA" and (reply or "").startswith("354"):
                await self._receive(reader, writer, encrypted=encrypted)
            if command == "STARTTLS" and (reply or "").startswith("220") and self._tls is not None:
                await writer.start_tls(self._tls)
                encrypted = True
            if command == "QUIT":
                return

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, encrypted: bool) -> None:
        lines = []
        while (line := await reader.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        reply = self.reply_to("CONTENT", encrypted=encrypted)
        if (reply or "").startswith("250"):
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
