"""Fakes for hashing, addresses, tokens, keys and mail texts: fast, but without any security."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.exceptions import InvalidAccessToken, InvalidAddress, KeyUnusable
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.passwords import fold
from tequipy_auth.domain.ports import (
    AccessTokens,
    AddressParser,
    BreachedPasswords,
    CommonPasswords,
    KeyMaker,
    PasswordHasher,
    Revocations,
    SecretHasher,
    SuccessorKeys,
)
from tequipy_auth.domain.revocations import revocation_ids
from tequipy_auth.domain.value_objects import AccessToken, EmailAddress, PasswordHash, Principal
from tequipy_platform import JSON, Clock, Unavailable

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.+_-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,2}")


class SimpleAddressParser(AddressParser):
    """Accepts ASCII addresses of letters, digits and a few marks, which is sufficient for tests."""

    def parse(self, text: str) -> EmailAddress:
        """Return the address; raises `InvalidAddress`."""
        written = text.strip(" ")
        if _ADDRESS.fullmatch(written) is None:
            raise InvalidAddress
        return EmailAddress(written, written.casefold())


class FakePasswordHasher(PasswordHasher):
    """Hashes with SHA-256; like the real implementation it lets other tasks run in between."""

    async def hash(self, password: str, client: HashingClient) -> PasswordHash:  # noqa: ARG002 -- it has no queue
        """Return the SHA-256 hash."""
        await asyncio.sleep(0)
        return PasswordHash("fake", 0, 1, _sha256(password))

    async def verify(
        self,
        password: str,
        stored: PasswordHash | None,
        client: HashingClient,
        *,
        highest_cost: int = 0,  # noqa: ARG002 -- it has no cost
    ) -> bool:
        """Return whether the password matches."""
        return await self.hash(password, client) == stored

    def is_outdated(self, stored: PasswordHash) -> bool:
        """Return whether another hasher created the hash."""
        return stored.scheme != "fake"


class FakeCommonPasswords(CommonPasswords):
    """Contains the passwords that the test passes, in lower case."""

    def __init__(self, *passwords: str) -> None:
        self._passwords = passwords

    def __contains__(self, password: str) -> bool:
        """Return whether the password was passed; ignores case."""
        return fold(password) in self._passwords


class FakeBreachedPasswords(BreachedPasswords):
    """Contains the passwords that the test passes; `available = False` makes it know none, as during an outage."""

    def __init__(self, *passwords: str) -> None:
        self.available = True
        self.asked: list[str] = []
        self._passwords = passwords

    async def contains(self, password: str) -> bool:
        """Return whether the password was passed."""
        self.asked.append(password)
        await asyncio.sleep(0)
        return self.available and password in self._passwords


class FakeSecretHasher(SecretHasher):
    """Hashes with SHA-256; like the real implementation it lets other tasks run in between."""

    async def hash(self, secret: str) -> str:
        """Return the SHA-256 hash."""
        await asyncio.sleep(0)
        return _sha256(secret)

    async def verify(self, secret: str, stored: str) -> bool:
        """Return whether the secret matches."""
        return await self.hash(secret) == stored


class FakeSuccessorKeys(SuccessorKeys):
    """Provides keys by version; a test may add or remove keys."""

    def __init__(self) -> None:
        self.keys = {1: b"first"}

    @property
    def current_version(self) -> int:
        """The highest version."""
        return max(self.keys)

    def key(self, version: int) -> bytes | None:
        """Return the key of a version."""
        return self.keys.get(version)


class MemoryRevocations(Revocations):
    """Stores revoked ids; share one instance to act like several processes."""

    def __init__(self, clock: Clock, *, ttl: timedelta) -> None:
        self.members: dict[str, datetime] = {}
        self._clock = clock
        self._ttl = ttl

    async def add(self, *revoked_ids: str) -> None:
        """Store the ids until they expire."""
        self.members.update(dict.fromkeys(revoked_ids, self._clock.now() + self._ttl))

    async def contains_any(self, ids: Collection[str]) -> bool:
        """Return whether one of the ids is stored and has not expired."""
        now = self._clock.now()
        return any(each in self.members and now < self.members[each] for each in ids)


class FakeAccessTokens(AccessTokens):
    """Issues opaque tokens, which only this object can verify."""

    def __init__(self, clock: Clock, *, ttl: timedelta, revocations: Revocations) -> None:
        self._clock = clock
        self._ttl = ttl
        self._revocations = revocations
        self._issued: dict[str, tuple[Principal, datetime]] = {}
        self.error: Unavailable | None = None

    async def issue(self, principal: Principal) -> AccessToken:
        """Store the principal under a new token."""
        token = f"fake-access-token-{len(self._issued) + 1}"
        self._issued[token] = principal, self._clock.now() + self._ttl
        return AccessToken(token, int(self._ttl.total_seconds()))

    async def verify(self, token: str) -> Principal:
        """Return the principal of the token; raises `InvalidAccessToken`."""
        principal, expires_at = self._issued.get(token, (None, None))
        if principal is None or expires_at is None or expires_at <= self._clock.now():
            raise InvalidAccessToken
        if await self._revocations.contains_any(revocation_ids(principal)):
            raise InvalidAccessToken
        return principal

    async def check(self) -> None:
        """Raise the error that a test assigned to `error`, if any."""
        if self.error is not None:
            raise self.error

    async def jwks(self) -> dict[str, JSON]:
        """Return an empty key set."""
        return {"keys": []}


class FakeKeyMaker(KeyMaker):
    """Creates numbered keys that cannot sign; `versions` are those of the available key-encryption keys."""

    def __init__(self) -> None:
        self.versions = {1}
        self._made = 0

    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return the next key."""
        self._made += 1
        return SigningKey(f"key-{self._made}", "none", state, {}, b"encrypted", max(self.versions), now, now)

    def check(self, key: SigningKey) -> None:
        """Raise `KeyUnusable` unless the key's version is available."""
        if key.encryption_version not in self.versions or not key.private_key:
            raise KeyUnusable(f"Signing key {key.kid} cannot be decrypted.")

    def reencrypt(self, key: SigningKey) -> SigningKey | None:
        """Return the key with the highest version."""
        if key.encryption_version is not None:
            self.check(key)
        newest = max(self.versions)
        return None if key.encryption_version == newest else replace(key, encryption_version=newest)


class RecordingOperations(Operations):
    """Counts operations by operation and status."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, operation: str, status: str) -> None:
        """Count one operation."""
        self.counts[operation, status] += 1


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
