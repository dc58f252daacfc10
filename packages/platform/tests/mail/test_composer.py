"""Composed messages: a parser returns the texts that went in."""

import email
import email.policy
import re
from dataclasses import replace
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_observability import RequestContext, request_context
from tequipy_platform import Mail, MailRejected
from tequipy_platform.mail.composer import compose
from tequipy_platform.testing import FrozenClock

MAIL = Mail("ann@example.com", "Hello", "Text\n", "<1@example.com>")
SENDER = "Tequipy <no-reply@example.com>"

# Besides any text: text that looks encoded, long words, and long texts of short words.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60),
    st.text('=?utf8qB_ "\\<>@,a', max_size=40),
    st.text("ab ", max_size=400),
    st.sampled_from(["=?utf-8?q?a?=", "a =?utf-8?b?YQ==?= b", "x" * 700, "ä" * 300, " lead", "trail ", "two  spaces"]),
)


def content(mail: Mail, sender: str = SENDER) -> bytes:
    return compose(mail, sender=sender, clock=FrozenClock()).content


def parse(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def lines(text: str) -> list[str]:
    """Return the lines of a text without the line breaks at its end."""
    return re.split(r"\r\n|\r|\n", text.rstrip("\r\n"))


def head(raw: bytes) -> list[bytes]:
    return raw.partition(b"\r\n\r\n")[0].split(b"\r\n")


@given(texts)
def test_a_subject_is_read_as_it_was_written(subject: str) -> None:
    """Any subject is parsed as it was given; every line of the header is ASCII and within the limit."""
    raw = content(replace(MAIL, subject=subject))
    message = parse(raw)
    assert str(message["Subject"]) == subject
    assert message["Subject"].defects == ()
    assert max(map(len, head(raw))) <= 998
    raw.partition(b"\r\n\r\n")[0].decode("ascii")


@given(texts.filter(lambda name: name.strip(" ") == name))
def test_a_display_name_is_read_as_it_was_written(name: str) -> None:
    """A display name may hold quotes, commas, brackets or encoded words; the address does not change."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    raw = content(MAIL, sender=f'"{quoted}" <no-reply@example.com>')
    # The older parser, because the newer one keeps the space between encoded words (against RFC 2047, section 6.2).
    phrase, address = parseaddr(email.message_from_bytes(raw)["From"].replace("\r\n", ""))
    assert (str(make_header(decode_header(phrase))), address) == (name, "no-reply@example.com")


@pytest.mark.parametrize("length", [1, 77, 78, 128])
def test_a_correlation_id_is_folded_and_never_encoded(length: int) -> None:
    """A correlation id of any allowed length is in the raw mail unchanged."""
    correlation_id = "c" * length
    with request_context(RequestContext(correlation_id=correlation_id)):
        raw = content(MAIL)
    assert correlation_id.encode() in raw
    assert str(parse(raw)["X-Correlation-ID"]) == correlation_id


def test_a_long_message_id_and_a_long_header_are_folded() -> None:
    """Long identifiers, such as the Message-ID, and long custom headers are folded."""
    long = "x" * 200
    raw = content(replace(MAIL, message_id=f"<{long}@example.com>", headers={"X-Report": f"{long} {long}"}))
    message = parse(raw)
    assert message["Message-ID"] == f"<{long}@example.com>"
    assert f"\r\nX-Report: {long}\r\n {long}\r\n".encode() in raw


def test_an_address_that_looks_encoded_is_written_as_it_is() -> None:
    """An address never contains an encoded word (RFC 2047, section 5), even if it looks like one."""
    address = "=?utf-8?q?a?=@example.com"
    composed = compose(replace(MAIL, to=address), sender=SENDER, clock=FrozenClock())
    assert composed.recipient == address
    assert f"\r\nTo: {address}\r\n".encode() in composed.content


@pytest.mark.parametrize(
    "change",
    [
        {"to": ""},
        {"to": "ann"},
        {"to": "@example.com"},
        {"to": "ann@"},
        {"to": "Ann <ann@example.com>"},
        {"to": "ann@example.com, eve@example.com"},
        {"to": "ann eve@example.com"},
        {"to": "ann(eve)@example.com"},
        {"to": '"ann"@example.com'},
        {"to": "änn@example.com"},
        {"to": "ann@exa mple.com"},
        {"to": "ann@exam\u2028ple.com"},
        {"message_id": ""},
        {"message_id": "1@example.com"},
        {"message_id": "<1 2@example.com>"},
        {"subject": "lone \ud800 surrogate"},
        {"text": "lone \ud800 surrogate"},
        {"html": "lone \ud800 surrogate"},
        {"headers": {"Subject": "a second one"}},
        {"headers": {"Content-Type": "text/html"}},
        {"headers": {"X Y": "z"}},
        {"headers": {"": "z"}},
        {"headers": {"X-Y": "\0"}},
    ],
)
def test_invalid_mails_are_refused_permanently(change: dict[str, object]) -> None:
    """Invalid input raises `MailRejected` and no other error."""
    with pytest.raises(MailRejected):
        content(replace(MAIL, **change))  # type: ignore[arg-type]  # -- the fields have several types


@given(st.text(max_size=200) | st.text("a\r\n .\x0b\x85\u2028", max_size=50))
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    """A text is parsed as it was given, and every line ends in CRLF, as SMTP requires."""
    try:
        raw = content(replace(MAIL, text=text))
    except MailRejected:
        assert any("\ud800" <= character <= "\udfff" for character in text)
        return
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert lines(parse(raw).get_content()) == lines(text)
