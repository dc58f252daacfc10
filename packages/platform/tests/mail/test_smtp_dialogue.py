"""The SMTP dialogue with servers that refuse, hang, drip or send garbage: every attempt ends as the right error."""

import base64
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tequipy_devstack.proving import SmtpStub
from tequipy_devstack.proving.smtp_stub import Session
from tequipy_platform import Mail, MailRejected, MailSenderRefused, MailUnavailable
from tequipy_platform.mail import MailSettings, SmtpMailer

MAIL = Mail("ann@example.com", "Hello", "Hello\n", "<1@example.com>")
PASSWORD = "hunter2"
STEPS = ["GREETING", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "CONTENT"]


@pytest.fixture
async def stub() -> AsyncIterator[SmtpStub]:
    async with SmtpStub() as stub:
        yield stub


def mailer(stub: SmtpStub, *, registry: CollectorRegistry | None = None, **options: Any) -> SmtpMailer:
    options = {"ehlo_name": "app.example.com"} | options
    return SmtpMailer(
        MailSettings(smtp_url=SecretStr(stub.url(credentials=f"ada:{PASSWORD}@")), **options), registry=registry
    )


def verbs(stub: SmtpStub) -> list[str]:
    return [command.text.partition(" ")[0] for command in stub.commands]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("535 5.7.8 bad credentials", MailSenderRefused),
        ("534 5.7.9 mechanism too weak", MailSenderRefused),
        ("550 5.1.1 whatever", MailSenderRefused),
        ("454 4.7.0 try later", MailUnavailable),
        ("421 4.3.2 closing", MailUnavailable),
    ],
)
async def test_a_refused_login_sends_nothing(
    stub: SmtpStub, caplog: pytest.LogCaptureFixture, reply: str, error: type[Exception]
) -> None:
    """If the login is refused, no address and no mail is sent, the mail waits, and the password is not logged."""
    stub.replies["AUTH"] = reply
    with pytest.raises(MailUnavailable) as raised:
        await mailer(stub).send(MAIL)
    assert raised.type is error
    assert set(verbs(stub)) == {"EHLO", "AUTH", "QUIT"} - ({"QUIT"} if reply.startswith("421") else set())
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [vars(record)["phase"] for record in errors] == (["auth"] if error is MailSenderRefused else [])
    assert PASSWORD not in f"{raised.value!r} {caplog.text} {[vars(record) for record in caplog.records]}"


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "CONTENT"])
@pytest.mark.parametrize("code", ["451 4.7.1", "550 5.1.1", "550 5.7.1"])
async def test_errors_do_not_quote_the_recipient(stub: SmtpStub, step: str, code: str) -> None:
    """Servers quote the recipient in replies; the log of a failed task, with its traceback, does not."""
    stub.replies[step] = f"{code} <{MAIL.to}>: no"
    with pytest.raises((MailRejected, MailUnavailable)) as failed:
        await mailer(stub).send(MAIL)
    assert MAIL.to not in "".join(traceback.format_exception(failed.value))


async def test_errors_do_not_quote_an_invalid_domain(stub: SmtpStub) -> None:
    """A domain that cannot be encoded is not shown by the traceback either."""
    mail = replace(MAIL, to="ann@hopper\u0378.example")
    with pytest.raises(MailRejected) as failed:
        await mailer(stub).send(mail)
    assert "hopper" not in "".join(traceback.format_exception(failed.value))


async def test_credentials_are_percent_decoded(stub: SmtpStub) -> None:
    """User and password may have any characters, percent-encoded in the URL and sent as UTF-8 (RFC 4616)."""
    url = stub.url(credentials="ada%40example.com:p%C3%A4%2F%3A%25@")
    await SmtpMailer(MailSettings(smtp_url=SecretStr(url), ehlo_name="app.example.com")).send(MAIL)
    (login,) = [command.text for command in stub.commands if command.text.startswith("AUTH")]
    assert base64.b64decode(login.split()[2]).decode() == "\0ada@example.com\0pä/:%"


@pytest.mark.parametrize("extensions", [(), ("AUTH GSSAPI NTLM",)], ids=["no AUTH", "no common method"])
async def test_a_login_that_the_server_does_not_offer_refuses_the_sender(
    stub: SmtpStub, caplog: pytest.LogCaptureFixture, extensions: tuple[str, ...]
) -> None:
    """Without AUTH, or without a method of ours, the mail is not sent without a login."""
    stub.extensions = extensions
    with pytest.raises(MailSenderRefused):
        await mailer(stub).send(MAIL)
    assert "MAIL" not in verbs(stub)
    assert [vars(record)["phase"] for record in caplog.records if record.levelname == "ERROR"] == ["capabilities"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_server_that_stops_answering_is_unavailable(stub: SmtpStub, step: str) -> None:
    """A server that no longer answers at any step ends the attempt after `timeout`; the mail is retried."""
    stub.replies[step] = None
    registry = CollectorRegistry()
    with pytest.raises(MailUnavailable) as raised:
        await mailer(stub, registry=registry, timeout=0.7).send(MAIL)
    assert raised.type is MailUnavailable
    assert len(stub.mails) == (step == "CONTENT"), "after the content the server may have the mail, but did not say so"
    assert registry.get_sample_value("mails_total", {"outcome": "unavailable"}) == 1


@pytest.mark.parametrize("pace", [{"delay": 0.2}, {"seconds_per_byte": 0.01}], ids=["slow", "dripping"])
async def test_a_slow_server_ends_at_the_total_timeout(stub: SmtpStub, pace: dict[str, float]) -> None:
    """A server whose every step is within `timeout` is left after `total_timeout`, before the mail is sent."""
    for name, value in pace.items():
        setattr(stub, name, value)
    began = time.monotonic()
    with pytest.raises(MailUnavailable) as raised:
        await mailer(stub, timeout=10, total_timeout=0.5).send(MAIL)
    assert raised.type is MailUnavailable
    assert time.monotonic() - began < 10, "not only one step was limited"
    assert stub.mails == []


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "CONTENT"])
async def test_a_refusal_counts_whatever_follows_it(stub: SmtpStub, step: str) -> None:
    """A final refusal is final even if the server answers nothing more: RSET and QUIT do not hide it."""
    stub.replies |= {step: "552 5.3.4 too big", "RSET": None, "QUIT": None}
    with pytest.raises(MailRejected):
        await mailer(stub, timeout=2).send(MAIL)


@pytest.mark.parametrize("reply", [None, "421 4.3.2 closing", "554 no", "no reply of SMTP", ""])
async def test_a_mail_that_was_accepted_is_sent_whatever_follows(stub: SmtpStub, reply: str | None) -> None:
    """After the server has accepted the mail, a server that hangs or fails at QUIT does not cause a second one."""
    stub.replies["QUIT"] = reply
    registry = CollectorRegistry()
    await mailer(stub, registry=registry).send(MAIL)
    assert len(stub.mails) == 1
    assert registry.get_sample_value("mails_total", {"outcome": "sent"}) == 1


class Quota(SmtpStub):
    """Refuses the sender at one step after a number of mails."""

    def __init__(self, step: str, reply: str, *, mails: int) -> None:
        super().__init__()
        self._step = step
        self._reply = reply
        self.left = mails

    def reply_to(self, command: str, session: Session) -> str | None:
        if command == self._step and len(self.mails) >= self.left:
            return self._reply
        return super().reply_to(command, session)


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("GREETING", "554 5.7.1 your address is blocked"),
        ("EHLO", "550 5.7.1 your address is blocked"),
        ("AUTH", "535 5.7.8 the password has expired"),
        ("MAIL", "550 5.4.5 daily sending quota exceeded"),
        ("RCPT", "550 5.7.1 relaying denied"),
        ("RCPT", "550 sending limit exceeded"),
        ("DATA", "554 5.7.1 rejected by policy"),
        ("CONTENT", "550 5.7.28 unusual rate of mail from you"),
    ],
)
async def test_a_sender_that_is_refused_midway_loses_no_mail(step: str, reply: str) -> None:
    """A server that takes three mails and then refuses the sender: the others wait, and arrive once it is mended."""
    async with Quota(step, reply, mails=3) as stub:
        sending = mailer(stub)
        waiting = []
        for number in range(6):
            mail = replace(MAIL, message_id=f"<{number}@example.com>")
            try:
                await sending.send(mail)
            except MailSenderRefused:
                waiting.append(mail)
        assert (len(stub.mails), len(waiting)) == (3, 3)
        stub.left = 6
        for mail in waiting:
            await sending.send(mail)
    found = [line for content in stub.mails for line in content.split(b"\r\n") if line.startswith(b"Message-ID")]
    assert found == [f"Message-ID: <{number}@example.com>".encode() for number in range(6)]


@pytest.mark.parametrize("challenge", ["334 %%%", "334 ", "334 Zm9v", "334 \xe4\xf6", "235"])
async def test_a_challenge_that_cannot_be_read_is_unavailable(stub: SmtpStub, challenge: str) -> None:
    """A challenge of AUTH that is not base64 raises no other error than those of the port."""
    stub.extensions = ("AUTH CRAM-MD5",)
    stub.replies["AUTH"] = challenge
    with pytest.raises(MailUnavailable):
        await mailer(stub).send(MAIL)


async def test_an_endless_reply_is_unavailable(stub: SmtpStub) -> None:
    """A reply of a megabyte is not collected."""
    stub.replies["RCPT"] = "\r\n".join(["250-more"] * 100_000)
    with pytest.raises(MailUnavailable):
        await mailer(stub).send(MAIL)


replies = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.builds(
        "{}{}{}".format, st.integers(0, 999), st.sampled_from(["", " ", "-", "\r\n"]), st.text("5.1\r\n x", max_size=9)
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.sampled_from([*STEPS, "QUIT"]), reply=replies)
async def test_any_reply_is_one_of_the_ports_errors(step: str, reply: str) -> None:
    """Whatever a server sends at any step, `send` returns or raises an error of the port, and in bounded time."""
    async with SmtpStub({step: reply}) as stub:
        try:
            await mailer(stub, timeout=0.05, total_timeout=1).send(MAIL)
        except (MailRejected, MailUnavailable):
            return
        assert len(stub.mails) == 1, "a mail that counts as sent was accepted"
