"""Names under which addresses are remembered where they must not stand themselves."""

import hashlib
import hmac

from tequipy_auth.domain.value_objects import EmailAddress


class Pseudonyms:
    """Keyed hashes (HMAC-SHA-256): equal for equal input, and nobody without the key can try addresses against them.

    `context` separates what must not be compared: the same address has another name in another context.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, context: str, *parts: str) -> str:
        """Return the pseudonym of a text of several parts: 32 hexadecimal characters."""
        # Lengths in front: ("a", "bc") and ("ab", "c") are not the same.
        message = b"".join(len(raw).to_bytes(4) + raw for raw in map(str.encode, (context, *parts)))
        return hmac.digest(self._key, message, hashlib.sha256).hex()[:32]

    def of_address(self, address: EmailAddress) -> str:
        """Return what an address is remembered as, whether it has an account or not."""
        return self.of("address", address.canonical)
