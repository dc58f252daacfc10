"""E-mail addresses, read by email-validator."""

from typing import Final

from email_validator import EmailNotValidError, validate_email

from tequipy_auth.domain.exceptions import InvalidAddress
from tequipy_auth.domain.ports import AddressParser
from tequipy_auth.domain.value_objects import EmailAddress

MAX_ADDRESS_LENGTH: Final = 254
"""Characters: what fits into an SMTP path (RFC 5321, section 4.5.3.1.3)."""


class ValidatedAddressParser(AddressParser):
    """Takes what any mail server takes: no SMTPUTF8, quotes, encoded words, display names or DNS queries."""

    def parse(self, text: str) -> EmailAddress:
        """Return the address; its canonical form is case-folded, with the domain in ASCII (IDNA 2008, RFC 5891)."""
        written = text.strip(" ")
        if len(written) > MAX_ADDRESS_LENGTH:  # before any parsing, so that a megabyte costs nothing
            raise InvalidAddress
        try:
            address = validate_email(written, check_deliverability=False, allow_smtputf8=False)
        except (EmailNotValidError, UnicodeError) as error:
            # The library's message quotes what was sent, so ours is a constant.
            raise InvalidAddress from error
        if "=?" in address.local_part:  # an encoded word of RFC 2047: mail programs would read another address
            raise InvalidAddress
        return EmailAddress(written, f"{address.local_part}@{address.ascii_domain}".casefold())
