"""Ports other than the repositories: hashing, address parsing, access tokens, revocations and keys."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.value_objects import AccessToken, EmailAddress, PasswordHash, Principal
from tequipy_platform import JSON


class AddressParser(ABC):
    """Parses e-mail addresses."""

    @abstractmethod
    def parse(self, text: str) -> EmailAddress:
        """Return the address without leading and trailing ASCII spaces; raises `InvalidAddress`."""


class PasswordHasher(ABC):
    """Hashes passwords outside of the event loop; raises `Unavailable` when its queue is full.

    The client determines which place in the queue a hash gets.
    """

    @abstractmethod
    async def hash(self, password: str, client: HashingClient) -> PasswordHash:
        """Return the hash of a password with the current scheme, cost and pepper."""

    @abstractmethod
    async def verify(
        self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
    ) -> bool:
        """Return whether the password matches the hash; pass None for an account that does not exist.

        Every failed check takes the same time, independent of the stored hash: the time of the current cost or of
        `highest_cost`, whichever is higher. `highest_cost` is the highest cost of all stored hashes.
        """

    @abstractmethod
    def is_outdated(self, stored: PasswordHash) -> bool:
        """Return whether the hash was made with another scheme, cost or pepper than new hashes."""


class CommonPasswords(ABC):
    """The list of common passwords."""

    @abstractmethod
    def __contains__(self, password: str) -> bool:
        """Return whether the password, which is in NFKC, is in the list; ignores case."""


class BreachedPasswords(ABC):
    """The passwords that are known from data breaches."""

    @abstractmethod
    async def contains(self, password: str) -> bool:
        """Return whether the password, which is in NFKC, is known from data breaches; case matters.

        Takes at most a second. Returns False when the source of this knowledge does not answer by then.
        """


class SecretHasher(ABC):
    """Hashes the secrets of refresh tokens, at a low cost because they are random."""

    @abstractmethod
    async def hash(self, secret: str) -> str:
        """Return the hash of a secret."""

    @abstractmethod
    async def verify(self, secret: str, stored: str) -> bool:
        """Return whether the secret matches the stored hash."""

    async def exchange(self, secret: str, stored: str, *, successor: str) -> str | None:
        """Return the hash of `successor` if the secret matches the stored hash, and None otherwise."""
        return await self.hash(successor) if await self.verify(secret, stored) else None


class SuccessorKeys(ABC):
    """The server keys from which the successors of refresh tokens are derived."""

    @property
    @abstractmethod
    def current_version(self) -> int:
        """The version for new successors."""

    @abstractmethod
    def key(self, version: int) -> bytes | None:
        """Return the key of a version, or None if it is no longer configured."""


class AccessTokens(ABC):
    """Signs and verifies access tokens (JWT profile of RFC 9068)."""

    @abstractmethod
    async def issue(self, principal: Principal) -> AccessToken:
        """Return a signed access token for the principal."""

    @abstractmethod
    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raises `InvalidAccessToken`, also when its session was ended."""

    @abstractmethod
    async def check(self) -> None:
        """Raise `Unavailable` unless this process can sign with the currently active key."""

    @abstractmethod
    async def jwks(self) -> dict[str, JSON]:
        """Return the public keys as a JSON Web Key Set (RFC 7517, section 5), without private members."""


class Revocations(ABC):
    """The ids whose access tokens are rejected although their signature is valid.

    An id identifies a session, an account version or a signing key; `domain.revocations` defines the formats.
    """

    @abstractmethod
    async def add(self, *revoked_ids: str) -> None:
        """Make every process reject access tokens with one of these revoked ids, until the last such token has expired.

        Call it after the change is committed. Repeated calls are harmless, and it does not fail while Redis is
        unavailable.
        """

    @abstractmethod
    async def contains_any(self, ids: Collection[str]) -> bool:
        """Return whether one of these ids is revoked; needs no I/O while this process receives all revocations."""


class KeyMaker(ABC):
    """Creates and encrypts the key pairs that sign access tokens."""

    @abstractmethod
    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return a new key; its private key is encrypted with the newest key-encryption key."""

    @abstractmethod
    def check(self, key: SigningKey) -> None:
        """Raise `KeyUnusable` unless the private key can be decrypted here and has not been modified."""

    @abstractmethod
    def reencrypt(self, key: SigningKey) -> SigningKey | None:
        """Return the key encrypted with the newest key-encryption key, None if it already is; raises `KeyUnusable`.

        Accepts keys that were encrypted with an older version, or before key-encryption keys had versions.
        """


class PersonalData(ABC):
    """What another package holds about an account; its part of `GET /me/export`.

    To erase it, the package has a task with `on=("auth.account_erased",)`, whose payload is `user_id`.
    """

    section: str
    """The name of its part: snake_case, and unique."""

    @abstractmethod
    async def export(self, user_id: UUID) -> JSON:
        """Return everything that is held about the account, without secrets."""
