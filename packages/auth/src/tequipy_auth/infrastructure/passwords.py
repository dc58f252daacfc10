"""Password hashes: bcrypt over a peppered HMAC, and what was stored before."""

import hashlib
import hmac
import logging
from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Final, Literal

import bcrypt

from tequipy_auth.domain.hashing import HashingClient
from tequipy_auth.domain.passwords import MAX_STORED_COST
from tequipy_auth.domain.ports import PasswordHasher
from tequipy_auth.domain.value_objects import PasswordHash
from tequipy_auth.infrastructure.hashing import HashingPool, check_digest_padded, is_bcrypt_digest, make_digest

SCHEME: Final = "bcrypt-hmac-sha256"
"""`bcrypt(base64(HMAC-SHA-256(pepper, password)))`: 72 bytes are no limit, and a stolen table alone opens nothing."""

PLAIN_SCHEME: Final = "bcrypt"
"""`bcrypt(password)`, cut at 72 bytes, without a pepper: what most systems store whose accounts are taken over.

Whoever can write to the database can make such a hash without any secret of ours.
"""

ForeignScheme = Literal["bcrypt"]
"""Schemes of other systems, which verify only where the settings name them."""

_BCRYPT_BYTES: Final = 72
_NO_PEPPER: Final = 0

_logger = logging.getLogger(__name__)


class BcryptPasswordHasher(PasswordHasher):
    """Hashes in a pool; `peppers` maps versions to keys, the highest version is the one for new hashes.

    Hashes of `foreign_schemes` verify too, and are outdated.
    """

    def __init__(
        self,
        pool: HashingPool,
        *,
        peppers: Mapping[int, bytes],
        cost: int,
        foreign_schemes: Collection[ForeignScheme] = (),
    ) -> None:
        self._pool = pool
        self._peppers_of: dict[str, Collection[int]] = {SCHEME: peppers.keys()}
        self._peppers_of |= {scheme: {_NO_PEPPER} for scheme in foreign_schemes}
        self._peppers = peppers
        self._cost = cost
        self._pepper_version = max(peppers)
        # For accounts that do not exist. Its salt and cost are real, its hash is none: so it costs nothing to make,
        # takes as long as any other to check, and nothing matches it.
        self._dummy = self._stored(bcrypt.gensalt(cost).decode("ascii") + "." * 31)

    async def hash(self, password: str, client: HashingClient) -> PasswordHash:
        """Return the hash under the current cost and pepper."""
        material = self._material(password, SCHEME, self._pepper_version)
        return self._stored(await self._pool.run(client, make_digest, material, self._cost))

    async def verify(
        self, password: str, stored: PasswordHash | None, client: HashingClient, *, highest_cost: int = 0
    ) -> bool:
        """Tell whether it is the password; what cannot be verified takes its time too, and is False."""
        known = stored is not None and self._is_usable(stored)
        target = stored if stored is not None and known else self._dummy
        material = self._material(password, target.scheme, target.pepper_version)
        cost = max(self._cost, min(highest_cost, MAX_STORED_COST))
        return await self._pool.run(client, check_digest_padded, material, target.digest, cost) and known

    def is_outdated(self, stored: PasswordHash) -> bool:
        """Tell whether a new hash would have another scheme, cost or pepper."""
        current = (SCHEME, self._cost, self._pepper_version)
        return (stored.scheme, stored.cost, stored.pepper_version) != current

    def _material(self, password: str, scheme: str, pepper_version: int) -> bytes:
        # Surrogates: what no keyboard types is a wrong password, not an error.
        raw = password.encode("utf-8", "surrogatepass")
        if scheme == PLAIN_SCHEME:
            return raw[:_BCRYPT_BYTES]
        return b64encode(hmac.digest(self._peppers[pepper_version], raw, hashlib.sha256))

    def _stored(self, digest: str) -> PasswordHash:
        return PasswordHash(SCHEME, self._cost, self._pepper_version, digest)

    def _is_usable(self, stored: PasswordHash) -> bool:
        usable = stored.pepper_version in self._peppers_of.get(stored.scheme, ()) and is_bcrypt_digest(stored.digest)
        if not usable:
            # An operator who took a pepper away, or whose foreign scheme is not set, must learn why nobody can log in.
            # The redaction of logs hides fields whose names hold "pepper", so this one is named after its use.
            facts = {"scheme": stored.scheme, "cost": stored.cost, "hmac_key_version": stored.pepper_version}
            _logger.error("password_hash_refused", extra=facts)
        return usable
