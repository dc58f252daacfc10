"""DKIM: no mail has a form that a relay would change, so that a signature is valid when the mail arrives (RFC 6376)."""

import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import dkim  # type: ignore[import-untyped]  # -- dkimpy ships no types
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tequipy_devstack.proving import SmtpStub
from tequipy_observability import RequestContext, request_context
from tequipy_platform import Mail, MailRejected
from tequipy_platform.mail import MailSettings
from tequipy_platform.mail.composer import compose
from tequipy_platform.mail.smtp_dialogue import deliver
from tequipy_platform.testing import FrozenClock

CANONICAL = [(head, body) for head in (b"simple", b"relaxed") for body in (b"simple", b"relaxed")]
KEY = rsa.generate_private_key(65537, 2048)
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
PUBLIC = "".join(
    KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().splitlines()[1:-1]
)
MAIL = Mail(
    "ann@example.com",
    "Grüße, und ein Betreff, der länger ist als eine Zeile: bitte bestätigen Sie Ihre Anmeldung",
    "Grüße,\n\n.\n..\nFrom here on\nhttps://app.example.com/" + "x" * 200 + "\n\n  indented  \n\n\n",
    "<0195d2f0-aaaa-8bbb-8ccc-0123456789ab@app.example.com>",
    html='<p lang="de">Grüße,</p>\n.\nFrom here on\n<p>' + "x" * 2000 + "</p> \n",
    headers={"X-Long": "many words of a header " * 20 + "end"},
)
SENDER = "Grüße & Co <no-reply@example.com>"


def content(mail: Mail) -> bytes:
    with request_context(RequestContext(correlation_id="c" * 100)):
        return compose(mail, sender=SENDER, clock=FrozenClock()).content


def sign(message: bytes, canonical: tuple[bytes, bytes]) -> bytes:
    """Return the message with a signature of all its header fields, as a relay with a DKIM key adds it."""
    names = [name.lower() for name in re.findall(rb"(?m)^([\w-]+):", message.partition(b"\r\n\r\n")[0])]
    signature: bytes = dkim.sign(
        message, b"test", b"example.com", PRIVATE, canonicalize=canonical, include_headers=names
    )
    return signature + message


def is_valid(message: bytes) -> bool:
    return bool(dkim.verify(message, dnsfunc=lambda *_, **__: f"v=DKIM1; k=rsa; p={PUBLIC}".encode()))


def transported(message: bytes) -> bytes:
    """Return what is left of a message after relays that change all that RFC 5321 and mail boxes let them change.

    Octets outside ASCII are lost where 8BITMIME is missing, white space at the end of lines is removed, lines are cut
    at the limit, and lines that begin with "From " are quoted.
    """
    lines = [re.sub(rb"[^\t\x20-\x7e]", b"?", line).rstrip() for line in message.split(b"\r\n")]
    cut = [line[start : start + 998] for line in lines for start in range(0, max(len(line), 1), 998)]
    return b"\r\n".join(re.sub(rb"^From ", b">From ", line) for line in cut)


def refolded(message: bytes) -> bytes:
    """Return a message whose header fields a relay has unfolded and folded again, with other white space."""
    head, _, body = message.partition(b"\r\n\r\n")
    fields = re.sub(rb"\r\n[ \t]+", b" ", head).split(b"\r\n")
    folded = [re.sub(rb"(.{40,60}?) ", rb"\1\r\n\t", field) for field in fields]
    return b"\r\n".join(folded) + b"\r\n\r\n" + body


@pytest.mark.parametrize("canonical", CANONICAL, ids=lambda pair: b"/".join(pair).decode())
async def test_a_signed_mail_arrives_with_a_valid_signature(canonical: tuple[bytes, bytes]) -> None:
    """A signed mail that is sent by SMTP and changed by relays is valid, with any canonicalization."""
    message = sign(content(MAIL), canonical)
    assert is_valid(message)
    async with SmtpStub() as stub:
        settings = MailSettings(smtp_url=SecretStr(stub.url()), sender=SENDER)
        signed = replace(compose(MAIL, sender=SENDER, clock=FrozenClock()), content=message)
        await deliver(settings, urlsplit(stub.url()), signed)
    (received,) = stub.mails
    assert received == message
    assert is_valid(transported(received))
    assert not is_valid(transported(received).replace(b"auto-generated", b"no")), "each field is signed"
    assert not is_valid(transported(received).replace(b"=46rom", b"From")), "and the body"


@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
def test_a_relay_may_fold_the_header_again(body: bytes) -> None:
    """With relaxed canonicalization of the header, other folds and white space change nothing."""
    message = sign(content(MAIL), (b"relaxed", body))
    changed = refolded(message)
    assert changed != message
    assert is_valid(changed)


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.text("a \t.\nä", max_size=100),
    st.lists(st.sampled_from(["From here", ".", "..", " ", "", "x" * 999, "x" * 75 + "=", "ä" * 30, "\x0c", "\0"])).map(
        "\n".join
    ),
)


@pytest.mark.parametrize("form", ["text", "html"])
@given(text=texts)
def test_no_relay_has_to_change_a_mail(form: str, text: str) -> None:
    """Any text or HTML is composed as ASCII in lines within all limits, without white space at their ends."""
    raw = content(replace(MAIL, **{form: text}))  # type: ignore[arg-type]  # -- the names of two fields
    assert transported(raw) == raw
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    for part in re.findall(rb"quoted-printable\r\n(?:.+\r\n)*\r\n((?:.*\r\n)*?)(?:--|\Z)", raw):
        assert max(map(len, part.split(b"\r\n"))) <= 76, "RFC 2045, section 6.7"


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120) | st.sampled_from(["", " ", "x" * 900])


@given(subject=words, value=words)
def test_no_relay_has_to_change_a_header(subject: str, value: str) -> None:
    """Every line of a header has at most 78 characters if it has more than one word, and no white space at its end."""
    try:
        raw = content(replace(MAIL, subject=subject, headers={"X-Value": value}))
    except MailRejected:
        return
    head = raw.partition(b"\r\n\r\n")[0]
    assert transported(head) == head
    long = [line for line in head.split(b"\r\n") if len(line) > 78]
    assert all(line.strip().count(b" ") <= 1 for line in long), "a name and a word, or a word"


@pytest.mark.parametrize("read", [lambda mail: mail.text, lambda mail: mail.html], ids=["text", "html"])
def test_a_plain_mail_stays_readable(read: Callable[[Mail], str]) -> None:
    """Texts of plain ASCII are not encoded, so that links can be read and copied in the raw mail."""
    link = f"https://app.example.com/#token={'x' * 300}"
    raw = content(replace(MAIL, text=f"Open\n\n{link}\n", html=f'<p>Open</p>\n<p><a href="{link}">{link}</a></p>\n'))
    mail = replace(MAIL, text=f"Open\r\n\r\n{link}\r\n", html=f'<p>Open</p>\r\n<p><a href="{link}">{link}</a></p>\r\n')
    assert f"\r\n\r\n{read(mail)}".encode() in raw
