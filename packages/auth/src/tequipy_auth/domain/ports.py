"""What the rules need from outside, beside the database: hashing, addresses, signed tokens, keys."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.value_objects import AccessToken, EmailAddress, PasswordHash, Principal
from tequipy_platform import JSON


class AddressParser(ABC):
    """Reads e-mail addresses."""

    @abstractmethod
    def parse(self, text: str) -> EmailAddress:
        """Return the address, outer ASCII spaces trimmed; raises `InvalidAddress`."""


class PasswordHasher(ABC):
    """Hashes passwords slowly, off the event loop; raises `Unavailable` when its queue is full.

    The client decides which place in the queue a hash gets.
    """

    @abstractmethod
    async def hash(self, password: str, client: HashingClient) -> PasswordHash:
        """Return the hash of a password under the current scheme, cost and pepper."""

    @abstractmethod
    async def verify(
        self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
    ) -> bool:
        """Tell whether the password is the one that was hashed; None stands for an account that does not exist.

        Every failed check takes the same time, whatever is stored: that of the present cost or of `highest_cost`, the
        highest cost that is stored of any account, whichever is higher.
        """

    @abstractmethod
    def is_outdated(self, stored: PasswordHash) -> bool:
        """Tell whether new hashes are made otherwise: by another scheme, at another cost, with another pepper."""


class CommonPasswords(ABC):
    """The passwords that everybody tries first."""

    @abstractmethod
    def __contains__(self, password: str) -> bool:
        """Tell whether it is one, in whatever case; the password is in NFKC."""


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
        """Return who a token speaks for; raises `InvalidAccessToken`, also for one whose session has been ended."""

    @abstractmethod
    async def check(self) -> None:
        """Raise `Unavailable` unless this process can sign with the key that is active now."""

    @abstractmethod
    async def jwks(self) -> dict[str, JSON]:
        """Return the public keys as a JSON Web Key Set (RFC 7517, section 5): public members only."""


class Revocations(ABC):
    """What is believed no more although its signature is good; its members are named in `domain.revocations`."""

    @abstractmethod
    async def add(self, *members: str) -> None:
        """Have every process refuse what rests on one of these, until the last access token that does has expired.

        Call it when the change is committed. Adding again is harmless; an absent Redis is no error.
        """

    @abstractmethod
    async def contains_any(self, members: Iterable[str]) -> bool:
        """Tell whether one of these has been revoked: without I/O while this process hears of every revocation."""


class KeyMaker(ABC):
    """Makes the key pairs that sign access tokens."""

    @abstractmethod
    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return a new key, its private half encrypted under the newest key-encryption key."""

    @abstractmethod
    def check(self, key: SigningKey) -> None:
        """Raise `KeyUnusable` unless the key can sign: it can be decrypted here and is as it was made."""

    @abstractmethod
    def reencrypt(self, key: SigningKey) -> SigningKey | None:
        """Return the key encrypted under the newest key-encryption key, None when it is already; raises `KeyUnusable`.

        Takes keys of an older version, and of before there were versions.
        """
