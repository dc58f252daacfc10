"""Mailers: one contract suite for the SMTP mailer, the folder mailer and the fake."""

import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError

from tequipy_devstack.proving import Authority
from tequipy_observability import RequestContext, request_context
from tequipy_platform import Mail, Mailer, MailRejected, MailSenderRefused, MailUnavailable
from tequipy_platform.mail import FolderMailer, MailSettings, SmtpMailer, build_mailer
from tequipy_platform.testing import FrozenClock, RecordingMailer

MAIL = Mail("ann@example.com", "Grüße", "Hello\n", "<1@example.com>", html="<p>Hello</p>")
SENDER = "Tequipy <no-reply@example.com>"


class Sink:
    """An SMTP server that keeps what it receives, or sends the configured replies."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.recipients: list[list[str]] = []
        self.greetings: list[str] = []
        self.answers: dict[str, str] = {}

    async def handle_EHLO(self, _server: Any, session: Any, _envelope: Any, hostname: str, responses: Any) -> Any:  # noqa: N802 -- aiosmtpd's name
        self.greetings.append(hostname)
        if "EHLO" in self.answers:
            return [self.answers["EHLO"]]
        session.host_name = hostname
        return responses

    async def handle_HELO(self, _server: Any, session: Any, _envelope: Any, hostname: str) -> str:  # noqa: N802 -- aiosmtpd's name
        session.host_name = hostname
        return self.answers.get("EHLO", "250 OK")

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        if "RCPT" not in self.answers:
            envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        self.received.append(envelope.content)
        self.recipients.append(envelope.rcpt_tos)
        return self.answers.get("DATA", "250 OK")


@pytest.fixture
async def sink(free_port: Callable[[], int]) -> AsyncIterator[tuple[Sink, str]]:
    handler = Sink()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield handler, f"smtp://127.0.0.1:{controller.port}"
    controller.stop()


def parse(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def smtp(url: str) -> SmtpMailer:
    return SmtpMailer(MailSettings(smtp_url=SecretStr(url), sender=SENDER), clock=FrozenClock())


@pytest.fixture(params=["smtp", "folder", "recording"])
def mailer(request: pytest.FixtureRequest, sink: tuple[Sink, str], tmp_path: Path) -> Mailer:
    built: dict[str, Callable[[], Mailer]] = {
        "smtp": lambda: smtp(sink[1]),
        "folder": lambda: FolderMailer(MailSettings(sender=SENDER, folder=tmp_path / "mail")),
        "recording": RecordingMailer,
    }
    return built[request.param]()


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Hello\r\nBcc: eve@example.com"},
        {"subject": "Hello\nthere"},
        {"to": "ann@example.com\r\nBcc: eve@example.com"},
        {"to": "nobody"},
        {"to": "Ann <ann@example.com>"},
        {"to": "ann@example.com,eve@example.com"},
        {"to": ""},
        {"message_id": "1@example.com"},
        {"message_id": "<1@example.com>\nX: y"},
        {"headers": {"X-Kind": "a\rb"}},
        {"headers": {"X Kind": "a"}},
        {"headers": {"Subject": "a second one"}},
        {"to": "änn@example.com"},
        {"to": "ann@exa_mple.com"},
        {"to": "ann..eve@example.com"},
        {"subject": "lone \ud800 surrogate"},
        {"text": "lone \ud800 surrogate"},
        {"html": "lone \ud800 surrogate"},
    ],
)
async def test_every_mailer_refuses_broken_mails(mailer: Mailer, change: dict[str, Any]) -> None:
    """A line break in a header, an invalid address, or a text that cannot be encoded raises `MailRejected`."""
    with pytest.raises(MailRejected):
        await mailer.send(replace(MAIL, **change))


async def test_every_mailer_accepts_a_mail_twice(mailer: Mailer) -> None:
    """Sending the same mail twice is no error."""
    await mailer.send(MAIL)
    await mailer.send(MAIL)


async def test_smtp_delivers_all_parts_of_a_mail(sink: tuple[Sink, str]) -> None:
    """Address, subject, both texts, the constant Message-ID, the sender and the correlation id arrive."""
    handler, url = sink
    with request_context(RequestContext(correlation_id="abc")):
        await smtp(url).send(replace(MAIL, to="ann@exämple.com"))
    message = parse(handler.received[0])
    assert handler.recipients == [["ann@xn--exmple-cua.com"]]
    assert (message["Subject"], message["Message-ID"]) == ("Grüße", "<1@example.com>")
    assert (message["From"], message["X-Correlation-ID"]) == (SENDER, "abc")
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert plain.get_content().strip() == "Hello"
    assert html is not None
    assert html.get_content().strip() == "<p>Hello</p>"


@pytest.mark.parametrize(
    ("step", "answer", "error", "outcome"),
    [
        ("RCPT", "550 5.1.1 no such user", MailRejected, "rejected"),
        ("DATA", "552 5.3.4 too big", MailRejected, "rejected"),
        ("MAIL", "530 5.7.0 authentication required", MailSenderRefused, "sender_refused"),
        ("RCPT", "550 5.7.1 relaying denied", MailSenderRefused, "sender_refused"),
        ("DATA", "554 5.7.1 over quota", MailSenderRefused, "sender_refused"),
        ("EHLO", "550 5.7.1 not welcome", MailSenderRefused, "sender_refused"),
        ("RCPT", "450 4.2.0 greylisted", MailUnavailable, "unavailable"),
        ("DATA", "451 later", MailUnavailable, "unavailable"),
        ("DATA", "250 OK", None, "sent"),
    ],
)
async def test_the_kind_of_a_refusal_decides_about_retries(
    sink: tuple[Sink, str],
    caplog: pytest.LogCaptureFixture,
    step: str,
    answer: str,
    error: type[Exception] | None,
    outcome: str,
) -> None:
    """A refusal of the mail is final, a temporary one is retried, and one of the sender is also logged as an error."""
    handler, url = sink
    handler.answers[step] = answer
    registry = CollectorRegistry()
    settings = MailSettings(smtp_url=SecretStr(url), sender=SENDER)
    raised: Exception | None = None
    try:
        await build_mailer(settings, registry=registry).send(MAIL)
    except (MailRejected, MailUnavailable) as refusal:
        raised = refusal
    assert type(raised) is (error or type(None))
    assert registry.get_sample_value("mails_total", {"outcome": outcome}) == 1
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == (["mail_sender_refused"] if error is MailSenderRefused else [])
    text = answer.partition(" ")[2]
    assert text not in f"{raised} {caplog.text}", "the server's text is not passed on: it may quote the recipient"


@pytest.mark.parametrize("credentials", ["", "user:password@"])
async def test_a_server_that_does_not_fit_the_settings_refuses_the_sender(
    sink: tuple[Sink, str], credentials: str
) -> None:
    """If the server does not offer STARTTLS or a login, the mail waits until the settings are corrected."""
    _, url = sink
    scheme = "smtp" if credentials else "smtp+starttls"
    with pytest.raises(MailSenderRefused):
        await smtp(f"{scheme}://{credentials}{url.removeprefix('smtp://')}").send(MAIL)


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
async def test_an_untrusted_certificate_refuses_the_sender(
    scheme: str, free_port: Callable[[], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An untrusted certificate makes the mail wait and logs an error, with STARTTLS and with smtps."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Authority(tmp_path).issue("127.0.0.1"))
    tls: dict[str, Any] = {"ssl_context" if scheme == "smtps" else "tls_context": context}
    controller = Controller(Sink(), hostname="127.0.0.1", port=free_port(), **tls)
    controller.start()
    try:
        with pytest.raises(MailSenderRefused):
            await smtp(f"{scheme}://127.0.0.1:{controller.port}").send(MAIL)
    finally:
        controller.stop()
    errors = [record for record in caplog.records if record.name.startswith("tequipy_platform.mail")]
    assert [(record.getMessage(), vars(record)["phase"]) for record in errors] == [
        ("mail_sender_refused", "certificate")
    ]


async def test_the_ehlo_name_is_configurable(sink: tuple[Sink, str]) -> None:
    """`TEQUIPY_MAIL__EHLO_NAME` is sent in EHLO."""
    handler, url = sink
    await SmtpMailer(MailSettings(smtp_url=SecretStr(url), sender=SENDER, ehlo_name="mail.example.com")).send(MAIL)
    assert handler.greetings == ["mail.example.com"]


@pytest.mark.parametrize("name", ["localhost", "mail.example.com", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_a_host_name_or_an_address_is_an_ehlo_name(name: str) -> None:
    """Settings accept the names that RFC 5321 (section 4.1.1.1) allows."""
    assert MailSettings(ehlo_name=name).ehlo_name == name


@pytest.mark.parametrize(
    "name", ["", "mail example.com", "mail\r\nMAIL FROM:<>", "192.0.2.1]", "[mail]", "-x", "é", "x" * 254]
)
def test_anything_else_is_no_ehlo_name(name: str) -> None:
    """An invalid EHLO name is refused with the settings, so that it cannot inject a command."""
    with pytest.raises(ValidationError, match="host name or an address literal"):
        MailSettings(ehlo_name=name)


async def test_a_mail_is_sent_to_the_exact_domain(sink: tuple[Sink, str]) -> None:
    """straße.de is not strasse.de (IDNA 2008), so its mail must not go there."""
    handler, url = sink
    async with smtp(url) as mailer:
        await mailer.send(replace(MAIL, to="ada@straße.de"))
    assert handler.recipients == [["ada@xn--strae-oqa.de"]]


async def test_a_long_link_stays_in_one_line(sink: tuple[Sink, str]) -> None:
    """Plain text is sent unencoded, so that a link can be copied from the raw mail."""
    handler, url = sink
    link = f"https://app.example.com/verify-email#token={'x' * 200}"
    async with smtp(url) as mailer:
        await mailer.send(replace(MAIL, text=f"Open\n\n{link}\n", html=None))
    assert f"\n{link}\r\n".encode() in handler.received[0]


async def test_no_server_is_unavailable(free_port: Callable[[], int]) -> None:
    """A refused connection raises `MailUnavailable`."""
    with pytest.raises(MailUnavailable):
        await smtp(f"smtp://127.0.0.1:{free_port()}").send(MAIL)


async def test_a_folder_holds_one_whole_file_for_each_message_id(tmp_path: Path) -> None:
    """A mail is an `.eml` file named after its Message-ID; sending it again replaces the file and leaves no other."""
    async with build_mailer(MailSettings(sender=SENDER, folder=tmp_path / "new" / "mail")) as mailer:
        await mailer.send(MAIL)
        await mailer.send(MAIL)
        await mailer.send(replace(MAIL, message_id="<../../2@example.com>"))
    files = sorted((tmp_path / "new" / "mail").iterdir())
    assert [file.name for file in files] == ["1@example.com.eml", "_.._2@example.com.eml"]
    assert parse(files[0].read_bytes())["To"] == "ann@example.com"


async def test_an_unusable_mail_folder_is_unavailable(tmp_path: Path) -> None:
    """If the folder cannot be created, the mailer raises `MailUnavailable`."""
    (tmp_path / "file").touch()
    with pytest.raises(MailUnavailable):
        await FolderMailer(MailSettings(folder=tmp_path / "file" / "mail")).send(MAIL)


def test_the_server_decides_the_mailer() -> None:
    """With an SMTP URL mails are sent, without one they are written to files."""
    assert isinstance(build_mailer(MailSettings(smtp_url=SecretStr("smtp://mail"))), SmtpMailer)
    assert isinstance(build_mailer(MailSettings()), FolderMailer)
