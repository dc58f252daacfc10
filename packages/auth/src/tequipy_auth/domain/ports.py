"""What the rules need from outside, beside the database: hashing, addresses, signed tokens, keys."""

from abc import ABC, abstractmethod

from tequipy_auth.domain.value_objects import AccessToken, EmailAddress, PasswordHash, Principal
from tequipy_platform import JSON


class AddressParser(ABC):
    """Reads e-mail addresses."""

    @abstractmethod
    def parse(self, text: str) -> EmailAddress:
        """Return the address, outer ASCII spaces trimmed; raises `InvalidAddress`."""


class PasswordHasher(ABC):
    """Hashes passwords slowly, off the event loop; raises `Unavailable` when its queue is full."""

    @abstractmethod
    async def hash(self, password: str) -> PasswordHash:
        """Return the hash of a password under the current scheme, cost and pepper."""

    @abstractmethod
    async def verify(self, password: str, stored: PasswordHash | None) -> bool:
        """Tell whether the password is the one that was hashed.

        None, for an account that does not exist, takes as long as any other and is False.
        """


class SecretHasher(ABC):
    """Hashes the secrets of refresh tokens: random already, so at a low cost."""

    @abstractmethod
    async def hash(self, secret: str) -> str:
        """Return what may be stored."""

    @abstractmethod
    async def verify(self, secret: str, stored: str) -> bool:
        """Tell whether the secret is the one that was hashed."""


class SuccessorKeys(ABC):
    """The server keys that derive a refresh token's successor."""

    @property
    @abstractmethod
    def current_version(self) -> int:
        """The version that new successors are derived with."""

    @abstractmethod
    def key(self, version: int) -> bytes | None:
        """Return the key of a version, None when it is no longer held."""


class AccessTokens(ABC):
    """Signs and verifies access tokens (JWT profile of RFC 9068)."""

    @abstractmethod
    async def issue(self, principal: Principal) -> AccessToken:
        """Sign a token that says who the principal is."""

    @abstractmethod
    async def verify(self, token: str) -> Principal:
        """Return who a token speaks for; raises `InvalidAccessToken`."""

    @abstractmethod
    async def jwks(self) -> dict[str, JSON]:
        """Return the public keys as a JSON Web Key Set (RFC 7517, section 5): public members only."""
