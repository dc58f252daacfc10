"""Encryption of SMTP: the URL decides, and no attacker between the mailer and the server can turn it off."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tequipy_devstack.proving import Authority, SmtpStub
from tequipy_platform import Mail, MailSenderRefused, MailUnavailable
from tequipy_platform.mail import MailSettings, SmtpMailer
from tequipy_platform.mail.settings import SmtpTls

MAIL = Mail("ann@example.com", "Hello", "Hello\n", "<1@example.com>")
HOST = "mail.example.com"
PASSWORD = "hunter2"
CREDENTIALS = f"ada:{PASSWORD}@"
BEFORE_TLS = {"EHLO", "HELO", "STARTTLS", "QUIT"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve `HOST` to this machine."""
    resolve: Callable[..., Any] = socket.getaddrinfo

    def resolve_host(host: str, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_host)


@pytest.fixture
async def attacker() -> AsyncIterator[SmtpStub]:
    async with SmtpStub() as stub:
        yield stub


def mailer(
    stub: SmtpStub, scheme: str, *, host: str = HOST, trusted: Authority | None = None, **settings: Any
) -> SmtpMailer:
    url = f"{scheme}://{CREDENTIALS}{host}:{stub.port}"
    root_cert = trusted.certificate if trusted else None
    return SmtpMailer(
        MailSettings(smtp_url=SecretStr(url), ssl_root_cert=root_cert, ehlo_name="app.example.com", **settings)
    )


def unencrypted(stub: SmtpStub) -> set[str]:
    """Return the commands that were sent in plain text."""
    return {command.text.partition(" ")[0] for command in stub.commands if not command.encrypted}


@pytest.mark.parametrize(
    ("url", "allowed", "tls"),
    [
        ("smtp://mail.example.com", False, SmtpTls.STARTTLS),
        ("smtp://ada:pw@mail.example.com:25", False, SmtpTls.STARTTLS),
        ("smtp://192.0.2.1", False, SmtpTls.STARTTLS),
        ("smtp://10.0.0.1", False, SmtpTls.STARTTLS),
        ("smtp://[2001:db8::1]", False, SmtpTls.STARTTLS),
        ("smtp://localhost.example.com", False, SmtpTls.STARTTLS),
        ("smtp://mail.localhost", False, SmtpTls.STARTTLS),
        ("smtp://127.1", False, SmtpTls.STARTTLS),
        ("smtp://localhost", False, SmtpTls.NONE),
        ("smtp://LOCALHOST:1025", False, SmtpTls.NONE),
        ("smtp://127.0.0.2:1025", False, SmtpTls.NONE),
        ("smtp://[::1]", False, SmtpTls.NONE),
        ("smtp://mail.example.com", True, SmtpTls.NONE),
        ("smtp+starttls://mail.example.com", True, SmtpTls.STARTTLS),
        ("smtp+starttls://localhost", False, SmtpTls.STARTTLS),
        ("smtps://mail.example.com", True, SmtpTls.IMPLICIT),
        ("smtps://localhost", False, SmtpTls.IMPLICIT),
    ],
)
def test_the_url_decides_about_tls(url: str, allowed: bool, tls: SmtpTls) -> None:
    """Plain SMTP is for this machine, or an explicit choice; a scheme that asks for TLS always gets it."""
    assert MailSettings(smtp_url=SecretStr(url), allow_unencrypted=allowed).smtp_tls is tls


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
async def test_a_mail_to_another_host_is_encrypted(scheme: str, authority: Authority) -> None:
    """Login and mail are encrypted; in plain text there is at most EHLO and STARTTLS."""
    async with SmtpStub(certificate=authority.issue(HOST), implicit_tls=scheme == "smtps") as stub:
        await mailer(stub, scheme, trusted=authority).send(MAIL)
    assert len(stub.mails) == 1
    assert unencrypted(stub) == (set() if scheme == "smtps" else {"EHLO", "STARTTLS"})
    assert [command.text.split()[0] for command in stub.commands if command.encrypted] == [
        *("EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT")
    ]


@pytest.mark.usefixtures("remote")
async def test_an_unencrypted_connection_is_an_explicit_choice(attacker: SmtpStub) -> None:
    """With `allow_unencrypted` a relay without TLS gets mail and login; without it, nothing."""
    with pytest.raises(MailSenderRefused):
        await mailer(attacker, "smtp").send(MAIL)
    assert unencrypted(attacker) <= BEFORE_TLS
    await mailer(attacker, "smtp", allow_unencrypted=True).send(MAIL)
    assert len(attacker.mails) == 1


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls"])
@pytest.mark.parametrize(
    ("replies", "error", "phase"),
    [
        pytest.param({}, MailSenderRefused, "starttls", id="removed from EHLO"),
        pytest.param({"EHLO": "502 5.5.1 no"}, MailSenderRefused, "starttls", id="EHLO refused"),
        pytest.param(
            {"EHLO": "250-stub\r\n250 STARTTLS", "STARTTLS": "454 4.7.0 later"}, MailUnavailable, None, id="454"
        ),
        pytest.param(
            {"EHLO": "250-stub\r\n250 STARTTLS", "STARTTLS": "502 5.5.1 no"}, MailSenderRefused, "connect", id="502"
        ),
        pytest.param(
            {"EHLO": "250-stub\r\n250-AUTH PLAIN\r\n250 STARTTLS", "STARTTLS": "220 go\r\n250 stub"},
            *(MailSenderRefused, "tls"),
            id="plain text after 220",
        ),
        pytest.param({"EHLO": "250 stub", "GREETING": "220-x\r\n220 STARTTLS"}, MailSenderRefused, "starttls", id="x"),
    ],
)
async def test_an_attacker_cannot_strip_starttls(
    attacker: SmtpStub,
    caplog: pytest.LogCaptureFixture,
    *,
    scheme: str,
    replies: dict[str, str],
    error: type[Exception],
    phase: str | None,
) -> None:
    """Whatever stands in plain text in place of STARTTLS: no address, mail or password is sent, and the mail waits."""
    attacker.replies |= replies
    with pytest.raises(MailUnavailable) as raised:
        await mailer(attacker, scheme).send(MAIL)
    assert raised.type is error
    assert [vars(record)["phase"] for record in caplog.records if record.levelname == "ERROR"] == (
        [phase] if phase else []
    )
    assert attacker.mails == []
    assert {command.text.partition(" ")[0] for command in attacker.commands} & {"AUTH", "MAIL", "RCPT", "DATA"} == set()
    assert PASSWORD not in f"{raised.value!r} {caplog.text}"


async def test_replies_that_were_injected_before_tls_are_dropped(authority: Authority) -> None:
    """What an attacker appends to the reply to STARTTLS is not read as a reply of the encrypted session."""
    certificate = authority.issue("127.0.0.1")
    injected = "220 go\r\n250-stub\r\n250 AUTH PLAIN\r\n235 welcome\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued"
    async with SmtpStub({"STARTTLS": injected}, certificate=certificate) as stub:
        await mailer(stub, "smtp+starttls", host="127.0.0.1", trusted=authority).send(MAIL)
        assert len(stub.mails) == 1
        stub.replies["AUTH"] = "535 5.7.8 no"
        with pytest.raises(MailSenderRefused):
            await mailer(stub, "smtp+starttls", host="127.0.0.1", trusted=authority).send(MAIL)
    assert len(stub.mails) == 1


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
@pytest.mark.parametrize("fault", ["untrusted", "other name", "expired"])
async def test_a_wrong_certificate_refuses_the_sender(
    *, scheme: str, fault: str, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that is untrusted, of another host or expired makes the mail wait; nothing is sent to its owner."""
    issuer = Authority(tmp_path / "other") if fault == "untrusted" else authority
    certificate = issuer.issue("evil.example.com" if fault == "other name" else HOST, expired=fault == "expired")
    async with SmtpStub(certificate=certificate, implicit_tls=scheme == "smtps") as stub:
        with pytest.raises(MailSenderRefused):
            await mailer(stub, scheme, trusted=authority).send(MAIL)
    assert [command for command in stub.commands if command.encrypted] == []
    assert unencrypted(stub) <= BEFORE_TLS
    errors = [record for record in caplog.records if record.name.startswith("tequipy_platform.mail")]
    assert [(record.getMessage(), vars(record)["phase"]) for record in errors] == [
        ("mail_sender_refused", "certificate")
    ]


async def test_plain_text_on_the_port_of_smtps_is_a_fault(attacker: SmtpStub, caplog: pytest.LogCaptureFixture) -> None:
    """`smtps://` to a port without TLS is logged as an error, because only an operator can mend it."""
    with pytest.raises(MailSenderRefused):
        await mailer(attacker, "smtps", host="127.0.0.1").send(MAIL)
    assert [vars(record)["phase"] for record in caplog.records if record.levelname == "ERROR"] == ["tls"]
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
async def test_a_connection_that_is_cut_during_the_handshake_is_no_fault_of_the_sender(scheme: str) -> None:
    """A server that disconnects instead of a handshake makes the mail wait, without an alert."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if scheme == "smtp+starttls":
            writer.write(b"220 stub\r\n")
            await reader.readline()
            writer.write(b"250-stub\r\n250 STARTTLS\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
        await reader.read(1)  # the first byte of the handshake
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(MailUnavailable) as raised:
            await SmtpMailer(MailSettings(smtp_url=SecretStr(url), ehlo_name="app.example.com")).send(MAIL)
    assert raised.type is MailUnavailable
