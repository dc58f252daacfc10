"""Parsing of e-mail addresses with email-validator."""

from typing import Final

from email_validator import EmailNotValidError, validate_email

from tequipy_auth.domain.exceptions import InvalidAddress
from tequipy_auth.domain.ports import AddressParser
from tequipy_auth.domain.value_objects import EmailAddress

MAX_ADDRESS_LENGTH: Final = 254
"""The maximum number of characters: the length of an SMTP path (RFC 5321, section 4.5.3.1.3)."""


class ValidatedAddressParser(AddressParser):
    """Accepts the addresses that every mail server accepts.

    It rejects SMTPUTF8, quoted local parts, encoded words and display names, and makes no DNS queries.
    """

    def parse(self, text: str) -> EmailAddress:
        """Return the address; its canonical form is case-folded, with the domain in ASCII (IDNA 2008, RFC 5891)."""
        written = text.strip(" ")
        if len(written) > MAX_ADDRESS_LENGTH:  # checked before parsing, so that a very long text costs nothing
            raise InvalidAddress
        try:
            address = validate_email(written, check_deliverability=False, allow_smtputf8=False)
        except (EmailNotValidError, UnicodeError) as error:
            # The library's message quotes the input, so the error uses a constant message.
            raise InvalidAddress from error
        # An encoded word (RFC 2047): mail programs would decode it to another address.
        if "=?" in address.local_part:
            raise InvalidAddress
        return EmailAddress(written, f"{address.local_part}@{address.ascii_domain}".casefold())
