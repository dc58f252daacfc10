"""Password hashes: bcrypt over a peppered HMAC, and bcrypt hashes of other systems."""

import hashlib
import hmac
import logging
from base64 import b64encode
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Final

from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.domain.ports import PasswordHasher
from tequipy_auth.domain.value_objects import PasswordHash
from tequipy_auth.infrastructure.hashing import (
    HashingPool,
    check_digest_padded,
    is_bcrypt_digest,
    make_digest,
    make_salt,
)
from tequipy_auth.infrastructure.settings import ForeignScheme

SCHEME: Final = "bcrypt-hmac-sha256"
"""`bcrypt(base64(HMAC-SHA-256(pepper, password)))`.

The HMAC avoids bcrypt's limit of 72 bytes, and without the pepper nobody can attack the hashes of a stolen table.
"""

PLAIN_SCHEME: Final = "bcrypt"
"""`bcrypt(password)`, truncated at 72 bytes, without a pepper: the hashes that most other systems store.

A person who can write to the database can create such a hash without knowing a secret.
"""

_BCRYPT_BYTES: Final = 72
_NO_PEPPER: Final = 0

logger = logging.getLogger(__name__)


class BcryptPasswordHasher(PasswordHasher):
    """Hashes passwords in a pool; `peppers` maps versions to keys.

    New hashes use `pepper_version`, or the highest version. Hashes of `foreign_schemes` are accepted too, and count as
    outdated.
    """

    def __init__(
        self,
        pool: HashingPool,
        *,
        peppers: Mapping[int, bytes],
        pepper_version: int | None = None,
        cost: int,
        foreign_schemes: Collection[ForeignScheme] = (),
    ) -> None:
        self._pool = pool
        # By scheme, the versions whose hashes are accepted.
        self._pepper_versions: dict[str, Collection[int]] = {SCHEME: peppers.keys()}
        self._pepper_versions |= {scheme: {_NO_PEPPER} for scheme in foreign_schemes}
        self._peppers = peppers
        self._cost = cost
        self._pepper_version = pepper_version or max(peppers)

    async def hash(self, password: str, client: HashingClient) -> PasswordHash:
        """Return the hash with the current cost and pepper."""
        material = self._material(password, SCHEME, self._pepper_version)
        return self._current(await self._pool.run(client, make_digest, material, self._cost))

    async def verify(
        self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
    ) -> bool:
        """Return whether the password matches; a hash that cannot be verified takes the same time and returns False."""
        usable = stored is not None and self._is_usable(stored)
        target = stored if stored is not None and usable else self._dummy
        material = self._material(password, target.scheme, target.pepper_version)
        cost = max(self._cost, min(highest_cost, MAX_STORED_COST))
        return await self._pool.run(client, check_digest_padded, material, target.digest, cost) and usable

    @cached_property
    def _dummy(self) -> PasswordHash:
        """The hash against which passwords for accounts that do not exist are checked.

        It has a valid salt and cost but an invalid digest: it costs nothing to create, a check takes as long as any
        other, and no password matches it.
        """
        return self._current(make_salt(self._cost) + "." * 31)

    def is_outdated(self, stored: PasswordHash) -> bool:
        """Return whether a new hash would have another scheme, cost or pepper."""
        current = (SCHEME, self._cost, self._pepper_version)
        return (stored.scheme, stored.cost, stored.pepper_version) != current

    def _material(self, password: str, scheme: str, pepper_version: int) -> bytes:
        """Return the bytes that bcrypt hashes."""
        # Text with lone surrogates is a wrong password, not an error.
        raw = password.encode("utf-8", "surrogatepass")
        if scheme == PLAIN_SCHEME:
            return raw[:_BCRYPT_BYTES]
        return b64encode(hmac.digest(self._peppers[pepper_version], raw, hashlib.sha256))

    def _current(self, digest: str) -> PasswordHash:
        """Return a hash with the current parameters and this digest."""
        return PasswordHash(SCHEME, self._cost, self._pepper_version, digest)

    def _is_usable(self, stored: PasswordHash) -> bool:
        accepted = self._pepper_versions.get(stored.scheme, ())
        usable = stored.pepper_version in accepted and is_bcrypt_digest(stored.digest)
        if not usable:
            # Operators need to learn that a pepper was removed, or a foreign scheme is not set: affected users cannot
            # log in.
            facts = {"scheme": stored.scheme, "cost": stored.cost, "hmac_key_version": stored.pepper_version}
            logger.error("password_hash_refused", extra=facts)
        return usable
