"""Pseudonyms for e-mail addresses in places where the address itself must not be stored."""

import hashlib
import hmac

from tequipy_auth.domain.value_objects import EmailAddress


class Pseudonyms:
    """Computes keyed hashes (HMAC-SHA-256): equal input gives equal output, and guessing the input requires the key.

    `context` separates uses: the same address has different pseudonyms in different contexts.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, context: str, *parts: str) -> str:
        """Return the pseudonym of a sequence of strings: 32 hexadecimal characters."""
        # Each part is prefixed with its length, so that ("a", "bc") and ("ab", "c") differ.
        message = b"".join(len(raw).to_bytes(4) + raw for raw in map(str.encode, (context, *parts)))
        return hmac.digest(self._key, message, hashlib.sha256).hex()[:32]

    def of_address(self, address: EmailAddress) -> str:
        """Return the pseudonym of an address; the same whether an account exists or not."""
        return self.of("address", address.canonical)
