"""Messages as they go out: whatever text they hold is read again as it was written."""

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
from tequipy_platform.infrastructure.mail_composer import compose
from tequipy_platform.testing import FrozenClock

MAIL = Mail("ann@example.com", "Hello", "Text\n", "<1@example.com>")
SENDER = "Tequipy <no-reply@example.com>"

# Beside any text: what looks encoded, long words, and long texts of short ones.
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
    """Return the lines of a text, which no or any number of line breaks end."""
    return re.split(r"\r\n|\r|\n", text.rstrip("\r\n"))


def head(raw: bytes) -> list[bytes]:
    return raw.partition(b"\r\n\r\n")[0].split(b"\r\n")


@given(texts)
def test_a_subject_is_read_as_it_was_written(subject: str) -> None:
    """Also one that looks encoded, or is longer than a line; every line of the head is ASCII and not too long."""
    raw = content(replace(MAIL, subject=subject))
    message = parse(raw)
    assert str(message["Subject"]) == subject
    assert message["Subject"].defects == ()
    assert max(map(len, head(raw))) <= 998
    raw.partition(b"\r\n\r\n")[0].decode("ascii")


@given(texts.filter(lambda name: name.strip(" ") == name))
def test_a_display_name_is_read_as_it_was_written(name: str) -> None:
    """The sender's name may hold quotes, commas, brackets or an encoded word; its address stays what it is."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    raw = content(MAIL, sender=f'"{quoted}" <no-reply@example.com>')
    # Not by the newer parser: it keeps the space between two encoded words, which RFC 2047 (section 6.2) drops.
    phrase, address = parseaddr(email.message_from_bytes(raw)["From"].replace("\r\n", ""))
    assert (str(make_header(decode_header(phrase))), address) == (name, "no-reply@example.com")


@pytest.mark.parametrize("length", [1, 77, 78, 128])
def test_a_correlation_id_is_folded_and_never_encoded(length: int) -> None:
    """An id of any length that the contract allows stands in the raw mail as it is."""
    correlation_id = "c" * length
    with request_context(RequestContext(correlation_id=correlation_id)):
        raw = content(MAIL)
    assert correlation_id.encode() in raw
    assert str(parse(raw)["X-Correlation-ID"]) == correlation_id


def test_a_long_message_id_and_a_long_header_are_folded() -> None:
    """Every identifier is: the Message-ID, and what a caller adds."""
    long = "x" * 200
    raw = content(replace(MAIL, message_id=f"<{long}@example.com>", headers={"X-Report": f"{long} {long}"}))
    message = parse(raw)
    assert message["Message-ID"] == f"<{long}@example.com>"
    assert f"\r\nX-Report: {long}\r\n {long}\r\n".encode() in raw


def test_an_address_that_looks_encoded_is_written_as_it_is() -> None:
    """RFC 2047, section 5: no encoded word stands in an address. An old row with such a one is sent to that address."""
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
def test_what_cannot_be_sent_is_refused_for_good(change: dict[str, object]) -> None:
    """Nothing that a caller hands over raises anything but `MailRejected`."""
    with pytest.raises(MailRejected):
        content(replace(MAIL, **change))  # type: ignore[arg-type]  # -- fields of several types


@given(st.text(max_size=200) | st.text("a\r\n .\x0b\x85\u2028", max_size=50))
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    """Line by line; every line ends in CRLF, as SMTP wants it."""
    try:
        raw = content(replace(MAIL, text=text))
    except MailRejected:
        assert any("\ud800" <= character <= "\udfff" for character in text)
        return
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert lines(parse(raw).get_content()) == lines(text)
