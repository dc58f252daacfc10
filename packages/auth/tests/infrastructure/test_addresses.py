"""E-mail addresses, parsed by the real parser and by the fake."""

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_auth import AddressParser, InvalidAddress
from tequipy_auth.infrastructure.addresses import ValidatedAddressParser
from tequipy_auth.testing import SimpleAddressParser
from tequipy_platform import Mail
from tequipy_platform.mail.composer import compose
from tequipy_platform.testing import FrozenClock

PARSER = ValidatedAddressParser()

both = pytest.mark.parametrize("parser", [PARSER, SimpleAddressParser()], ids=["real", "simple"])


@both
def test_one_account_for_every_spelling(parser: AddressParser) -> None:
    """The canonical form ignores case and outer spaces; the written form keeps the case."""
    address = parser.parse("  Ada.Lovelace+x@Example.COM ")
    assert (address.written, address.canonical) == ("Ada.Lovelace+x@Example.COM", "ada.lovelace+x@example.com")


@both
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ada",
        "@example.com",
        "ada@",
        "ada@@example.com",
        "a@b@example.com",
        "Ada <ada@example.com>",
        '"ada"@example.com',
        '"a@b"@example.com',
        "ada@example.com\n",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada\r\n@example.com",
        "ada@example.com\0",
        "\tada@example.com",
        "ada lovelace@example.com",
        "ada@[192.0.2.1]",
        "ädä@example.com",
        "ada@example.com,eve@example.com",
        "a@" + "b." * 125 + "com",
        "a" * 1_000_000,
        "\ud800@example.com",
        "=?utf-8?q?a?=@example.com",
        "ada.=?us-ascii?Q?b?=@example.com",
        "=?@example.com",
    ],
)
def test_invalid_addresses_are_refused(parser: AddressParser, text: str) -> None:
    """Display names, quoted local parts, line breaks, non-ASCII local parts and too long addresses are refused."""
    with pytest.raises(InvalidAddress) as refusal:
        parser.parse(text)
    assert not text.strip() or text not in str(refusal.value.members)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@example。com", "ada@example.com"),
    ],
)
def test_domains_are_compared_in_ascii(text: str, canonical: str) -> None:
    """Unicode and IDNA spellings of a domain are equal."""
    assert PARSER.parse(text).canonical == canonical


def test_the_longest_address_is_254_characters() -> None:
    """254 characters are accepted and 255 are not, whichever part is long."""
    domain = ".".join(["b" * 61] * 3) + ".example"
    local = "a" * (254 - len(domain) - 1)
    assert PARSER.parse(f"{local}@{domain}").written == f"{local}@{domain}"
    with pytest.raises(InvalidAddress):
        PARSER.parse(f"{local}a@{domain}")


surrogates_too = st.text(st.characters(exclude_categories=()))
address_like = st.builds("{}@{}".format, surrogates_too, surrogates_too) | st.emails() | st.from_regex(r"\A.+@.+\..+\Z")


@given(surrogates_too | address_like)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """No text raises another error, and the canonical form of a canonical form is itself."""
    try:
        canonical = PARSER.parse(text).canonical
    except InvalidAddress:
        return
    assert PARSER.parse(canonical).canonical == canonical
    assert canonical.isascii()
    assert len(canonical) <= 254


atext = st.text("abzAZ09!#$%&'*+/=?^_`{|}~-.", min_size=1, max_size=64)
# Characters that IDNA maps or keeps: sharp s, ligature, Kelvin sign, full-width letters, final sigma, an ideographic
# full stop.
labels = st.text("abzAZ09-ßäﬁ\u212aＡｂςΣ日本。", min_size=1, max_size=12)  # noqa: RUF001 -- on purpose
domains = st.lists(labels, min_size=1, max_size=3).map(".".join)
plausible = st.builds("{}@{}.com".format, atext, domains)


@given(plausible | st.emails())
def test_every_accepted_address_can_be_mailed_to(text: str) -> None:
    """Header and envelope of a mail contain exactly the accepted address."""
    try:
        address = PARSER.parse(text)
    except InvalidAddress:
        return
    mail = Mail(address.written, "Subject", "Text\n", "<1@example.com>")
    composed = compose(mail, sender="Tequipy <no-reply@example.com>", clock=FrozenClock())
    assert composed.recipient.casefold() == address.canonical
    message = email.message_from_bytes(composed.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    (read,) = message["To"].addresses
    assert (read.display_name, read.addr_spec) == ("", composed.recipient)
    assert message["To"].defects == ()
