"""Value objects: addresses, password hashes, tokens in their wire format, clients, principals and profiles."""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import ClassVar, Self
from uuid import UUID

SECRET_BYTES = 32
"""The length of secrets: 256 bits cannot be guessed (NIST SP 800-63B, section 5.1.2.1, requires 64)."""

_ENCODED_ID_LENGTH = 22
_ENCODED_SECRET_LENGTH = 43


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Return the bytes of unpadded base64url in canonical form; raises `ValueError`."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    if _encode(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An e-mail address as the user wrote it, and its canonical form for comparisons."""

    written: str
    canonical: str


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A password hash and the parameters that are needed to verify it."""

    scheme: str
    cost: int
    pepper_version: int
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SplitToken:
    """A token of the form `prefix.selector.secret`.

    The selector identifies the database row. The row contains only a hash of the secret, so that tokens cannot be
    derived from a stolen table.
    """

    prefix: ClassVar[str]

    id: UUID
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a token; raises `ValueError` for any other text than `str()` of a token would return."""
        prefix, _, rest = text.partition(".")
        selector, _, secret = rest.partition(".")
        if prefix != cls.prefix or len(selector) != _ENCODED_ID_LENGTH or len(secret) != _ENCODED_SECRET_LENGTH:
            raise ValueError(f"not a {cls.prefix} token")
        _decode(secret)
        return cls(UUID(bytes=_decode(selector)), secret)

    @classmethod
    def new(cls, token_id: UUID, secret: bytes) -> Self:
        """Return a token made of an id and 32 random bytes."""
        return cls(token_id, _encode(secret))

    def __str__(self) -> str:
        return f"{self.prefix}.{_encode(self.id.bytes)}.{self.secret}"


@dataclass(frozen=True, slots=True)
class RefreshTokenValue(SplitToken):
    """A refresh token: `rt1.<22 characters of the id>.<43 characters of the secret>`. It is opaque, not a JWT."""

    prefix: ClassVar[str] = "rt1"

    def successor(self, child_id: UUID, server_key: bytes) -> "RefreshTokenValue":
        """Return the successor with this id; this token, the id and the server key determine it.

        So parallel refreshes return the same successor, although the database stores only a hash of it. Its secret is
        `b64url(HMAC-SHA-256(server key, "rt-succ-v1" || child id || parent secret))`.
        """
        message = b"rt-succ-v1" + child_id.bytes + self.secret.encode("ascii")
        return RefreshTokenValue(child_id, _encode(hmac.digest(server_key, message, hashlib.sha256)))


class Purpose(Enum):
    """The purpose of a mailed token; the value is the path of the link in the mail."""

    VERIFY_EMAIL = "verify-email"
    ACCEPT_INVITATION = "accept-invitation"
    RESET_PASSWORD = "reset-password"  # noqa: S105 -- a path, not a secret
    CONFIRM_EMAIL = "confirm-email"
    UNDO_EMAIL = "undo-email"
    END_SESSION = "end-session"


@dataclass(frozen=True, slots=True)
class OneTimeTokenValue(SplitToken):
    """The token of a mailed link: `ev1.<id>.<secret>`."""

    prefix: ClassVar[str] = "ev1"

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 of the secret; a slow hash is not needed, because the secret has 256 random bits."""
        return hashlib.sha256(self.secret.encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a request, as far as it is known."""

    ip: str | None = None
    user_agent: str | None = None
    device_mark: str | None = field(default=None, repr=False, compare=False)
    """The device mark that the client sent, not verified yet (`DeviceMarks`); it is not stored."""

    def network(self, prefix_length: int) -> str:
        """Return the network to count the client by: its IPv4 address, or its IPv6 network of this prefix length.

        An IPv4 address that is mapped into IPv6 counts as IPv4; any other text, and no address, is `unknown`.
        """
        try:
            address = ip_address(self.ip or "")
        except ValueError:
            return "unknown"
        if not isinstance(address, IPv6Address):
            return str(address)
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        host_bits = 128 - prefix_length
        return f"{IPv6Address(int(address) >> host_bits << host_bits)}/{prefix_length}"


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller: the verified claims of an access token (RFC 9068)."""

    user_id: UUID
    session_id: UUID
    roles: tuple[str, ...]
    version: int
    auth_time: datetime
    amr: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed access token and its lifetime in seconds."""

    value: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The result of a login or refresh: an access token and a refresh token, with lifetimes in seconds."""

    access: AccessToken
    refresh: RefreshTokenValue
    refresh_expires_in: int
    device_mark: str | None = field(default=None, repr=False)
    """The device mark of the client after a login; None after a refresh."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An account as its owner sees it; immutable, because the cache shares one instance between callers."""

    id: UUID
    email: str
    email_verified: bool
    name: str | None
    roles: tuple[str, ...]
    created_at: datetime
