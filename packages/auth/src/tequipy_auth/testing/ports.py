"""Hashing, addresses, tokens and mail texts without cryptography: quick, and no secret is safe with them."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from tequipy_auth.domain.exceptions import InvalidAccessToken, InvalidAddress
from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.operations import Operations
from tequipy_auth.domain.passwords import fold
from tequipy_auth.domain.ports import (
    AccessTokens,
    AddressParser,
    CommonPasswords,
    PasswordHasher,
    Revocations,
    SecretHasher,
    SuccessorKeys,
)
from tequipy_auth.domain.revocations import revocation_ids
from tequipy_auth.domain.value_objects import AccessToken, EmailAddress, PasswordHash, Principal
from tequipy_platform import JSON, Clock, MailTemplates, MailText, Unavailable

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.+_-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,2}")


class SimpleAddressParser(AddressParser):
    """Takes ASCII addresses of letters, digits and a few marks: enough for tests."""

    def parse(self, text: str) -> EmailAddress:
        """Return the address; raises `InvalidAddress`."""
        written = text.strip(" ")
        if _ADDRESS.fullmatch(written) is None:
            raise InvalidAddress
        return EmailAddress(written, written.casefold())


class FakePasswordHasher(PasswordHasher):
    """SHA-256 at once; like a real one it lets other tasks run meanwhile."""

    async def hash(self, password: str, client: HashingClient) -> PasswordHash:  # noqa: ARG002 -- nobody waits
        """Return a hash."""
        await asyncio.sleep(0)
        return PasswordHash("fake", 0, 1, _sha256(password))

    async def verify(
        self,
        password: str,
        stored: PasswordHash | None,
        client: HashingClient,
        *,
        highest_cost: int = 0,  # noqa: ARG002 -- it costs nothing
    ) -> bool:
        """Tell whether it is the password."""
        return await self.hash(password, client) == stored

    def is_outdated(self, stored: PasswordHash) -> bool:
        """Tell whether another hasher made it."""
        return stored.scheme != "fake"


class FakeCommonPasswords(CommonPasswords):
    """The few that a test names, in lower case."""

    def __init__(self, *passwords: str) -> None:
        self._passwords = passwords

    def __contains__(self, password: str) -> bool:
        """Tell whether it was named, in whatever case."""
        return fold(password) in self._passwords


class FakeSecretHasher(SecretHasher):
    """SHA-256 at once; like a real one it lets other tasks run meanwhile."""

    async def hash(self, secret: str) -> str:
        """Return a hash."""
        await asyncio.sleep(0)
        return _sha256(secret)

    async def verify(self, secret: str, stored: str) -> bool:
        """Tell whether it is the secret."""
        return await self.hash(secret) == stored


class FakeSuccessorKeys(SuccessorKeys):
    """Keys by version; a test may add one, or take one away."""

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
    """Remembers what was revoked; share one between the processes of a test."""

    def __init__(self, clock: Clock, *, ttl: timedelta) -> None:
        self.members: dict[str, datetime] = {}
        self._clock = clock
        self._ttl = ttl

    async def add(self, *members: str) -> None:
        """Remember them until their time is over."""
        self.members.update(dict.fromkeys(members, self._clock.now() + self._ttl))

    async def contains_any(self, members: Iterable[str]) -> bool:
        """Tell whether one is remembered."""
        now = self._clock.now()
        return any(member in self.members and now < self.members[member] for member in members)


class FakeAccessTokens(AccessTokens):
    """Opaque tokens that this object remembers."""

    def __init__(self, clock: Clock, *, ttl: timedelta, revocations: Revocations) -> None:
        self._clock = clock
        self._ttl = ttl
        self._revocations = revocations
        self._issued: dict[str, tuple[Principal, datetime]] = {}
        self.error: Unavailable | None = None

    async def issue(self, principal: Principal) -> AccessToken:
        """Remember the principal under a new token."""
        token = f"fake-access-token-{len(self._issued) + 1}"
        self._issued[token] = principal, self._clock.now() + self._ttl
        return AccessToken(token, int(self._ttl.total_seconds()))

    async def verify(self, token: str) -> Principal:
        """Return who the token was issued to; raises `InvalidAccessToken`."""
        principal, expires_at = self._issued.get(token, (None, None))
        if principal is None or expires_at is None or expires_at <= self._clock.now():
            raise InvalidAccessToken
        if await self._revocations.contains_any(revocation_ids(principal)):
            raise InvalidAccessToken
        return principal

    async def check(self) -> None:
        """Raise what a test has put into `error`."""
        if self.error is not None:
            raise self.error

    async def jwks(self) -> dict[str, JSON]:
        """Return no keys: there are none."""
        return {"keys": []}


class RecordingOperations(Operations):
    """Remembers how often each operation ended how."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, operation: str, status: str) -> None:
        """Count one operation."""
        self.counts[operation, status] += 1


class PlainMailTemplates(MailTemplates):
    """The template's name as the subject, its values as the text, one on a line."""

    def render(self, template: str, **values: object) -> MailText:
        """Show what a real template would be given."""
        return MailText(template, "".join(f"{name}: {value}\n" for name, value in values.items()))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
