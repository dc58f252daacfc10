"""Values without identity: addresses, hashes, tokens as they look on the wire, and what a login hands out."""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import ClassVar, Self
from uuid import UUID

SECRET_BYTES = 32
"""256 bits: more than any search can go through (NIST SP 800-63B, section 5.1.2.1 asks for 64)."""

_ENCODED_ID_LENGTH = 22
_ENCODED_SECRET_LENGTH = 43


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Return the bytes of unpadded base64url in its one canonical spelling; raises `ValueError`."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    if _encode(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An address as it was written and in the canonical form that is compared."""

    written: str
    canonical: str


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A password's hash and all that is needed to verify it again."""

    scheme: str
    cost: int
    pepper_version: int
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SplitToken:
    """`prefix.selector.secret`: the selector finds the row, the secret proves the right to it.

    The database holds a hash of the secret alone, so that a stolen table opens nothing.
    """

    prefix: ClassVar[str]

    id: UUID
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token from the wire; raises `ValueError` for anything that `str()` of one would not give."""
        prefix, _, rest = text.partition(".")
        selector, _, secret = rest.partition(".")
        if prefix != cls.prefix or len(selector) != _ENCODED_ID_LENGTH or len(secret) != _ENCODED_SECRET_LENGTH:
            raise ValueError(f"not a {cls.prefix} token")
        _decode(secret)
        return cls(UUID(bytes=_decode(selector)), secret)

    @classmethod
    def new(cls, token_id: UUID, secret: bytes) -> Self:
        """Make a token of an id and 32 random bytes."""
        return cls(token_id, _encode(secret))

    def __str__(self) -> str:
        return f"{self.prefix}.{_encode(self.id.bytes)}.{self.secret}"


@dataclass(frozen=True, slots=True)
class RefreshTokenValue(SplitToken):
    """`rt1.<22 characters of the id>.<43 characters of secret>`: opaque, never a JWT."""

    prefix: ClassVar[str] = "rt1"

    def successor(self, child_id: UUID, server_key: bytes) -> "RefreshTokenValue":
        """Return the one token that may follow this one.

        Deterministic, so that everybody who holds the parent computes the same child although only a hash of it is
        stored: `b64url(HMAC-SHA-256(server key, "rt-succ-v1" || child id || parent secret))`.
        """
        message = b"rt-succ-v1" + child_id.bytes + self.secret.encode("ascii")
        return RefreshTokenValue(child_id, _encode(hmac.digest(server_key, message, hashlib.sha256)))


class Purpose(Enum):
    """What a mailed token is good for; the value is the path of the link in the mail."""

    VERIFY_EMAIL = "verify-email"
    RESET_PASSWORD = "reset-password"  # noqa: S105 -- a path, no secret


@dataclass(frozen=True, slots=True)
class OneTimeTokenValue(SplitToken):
    """`ev1.<id>.<secret>`: the token of a mailed link."""

    prefix: ClassVar[str] = "ev1"

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 of the secret: enough, for the secret has 256 bits of its own."""
        return hashlib.sha256(self.secret.encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from, as far as it is known."""

    ip: str | None = None
    user_agent: str | None = None
    device: str | None = field(default=None, repr=False, compare=False)
    """The mark of a client that has logged in before (`DeviceMarks`); stored nowhere."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: the verified claims of an access token (RFC 9068)."""

    user_id: UUID
    session_id: UUID
    roles: tuple[str, ...]
    version: int
    auth_time: datetime
    amr: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed access token and how many seconds it lives."""

    value: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login or a refresh hands out; both lives in seconds."""

    access: AccessToken
    refresh: RefreshTokenValue
    refresh_expires_in: int
    device_token: str | None = field(default=None, repr=False)
    """The mark of the client that has logged in; a refresh issues none."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An account as its owner sees it; frozen, for it is shared by reference through the cache."""

    id: UUID
    email: str
    email_verified: bool
    name: str | None
    roles: tuple[str, ...]
    created_at: datetime
