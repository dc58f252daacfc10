"""The keys that sign access tokens: made, encrypted, kept in PostgreSQL, and held ready in each process."""

import asyncio
import hashlib
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt.algorithms import ECAlgorithm
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from tequipy_auth.infrastructure.models import SigningKeyRow
from tequipy_platform import Clock, IdSource
from tequipy_platform.infrastructure.database import Database, SqlUnitOfWork

ALGORITHM: Final = "ES256"
"""ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4)."""

RELOAD_SECONDS: Final = 10.0
"""Whoever sends tokens with invented key ids causes one query in this time, in each process."""

_PUBLISHED: Final = ("next", "active", "retiring")
_NONCE_BYTES: Final = 12


class KeyUndecryptable(Exception):
    """A stored private key was not encrypted under the key-encryption key of the settings."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What verifies a token: `jwk` has the public members alone (RFC 7517)."""

    kid: str
    algorithm: str
    jwk: Mapping[str, str]
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs a token."""

    kid: str
    algorithm: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The active key, and by key id all that may have signed a token or soon will."""

    active: PrivateKey
    published: Mapping[str, PublicKey]


class KeyRing:
    """The keys of this process: loaded at first use, and again for an unknown key id."""

    def __init__(
        self, load: Callable[[], Awaitable[KeySet]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._keys: KeySet | None = None
        self._asked_at = 0.0

    async def keys(self) -> KeySet:
        """Return the keys as they were last loaded."""
        return self._keys or await self._loaded(None)

    async def find(self, kid: str) -> PublicKey | None:
        """Return a key by its id; None when it is unknown even to the store, asked at most once in 10 s."""
        return (await self._loaded(kid)).published.get(kid)

    async def _loaded(self, kid: str | None) -> KeySet:
        if (keys := self._enough_for(kid)) is not None:
            return keys
        async with self._lock:
            if (keys := self._enough_for(kid)) is not None:  # another caller has loaded them meanwhile
                return keys
            self._asked_at = self._monotonic()  # before the answer: a store that fails is not asked more often
            self._keys = await self._load()
            return self._keys

    def _enough_for(self, kid: str | None) -> KeySet | None:
        keys = self._keys
        if keys is None or kid is None or kid in keys.published:
            return keys
        return keys if self._monotonic() - self._asked_at < RELOAD_SECONDS else None


class SqlSigningKeys:
    """The table `auth.signing_keys`."""

    def __init__(self, database: Database, *, key_encryption_key: bytes, clock: Clock, new_id: IdSource) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._cipher = AESGCM(_derive(key_encryption_key))

    async def load(self) -> KeySet:
        """Return the keys, having made the first active one when there is none.

        Of processes that do so at once one succeeds and all return its key. Raises `KeyUndecryptable`, and
        `Unavailable` when the database is away.
        """
        async with SqlUnitOfWork(self._database, self._clock, self._new_id) as work:
            query = select(SigningKeyRow).where(SigningKeyRow.state.in_(_PUBLISHED))
            rows = (await work.session.scalars(query)).all()
            if not any(row.state == "active" for row in rows):
                # Waits for a concurrent insert to commit, and then does nothing: one active key, says the index.
                await work.session.execute(insert(SigningKeyRow).values(**self._new_key()).on_conflict_do_nothing())
                rows = (await work.session.scalars(query)).all()
        active = next(row for row in rows if row.state == "active")
        return KeySet(self._open(active), {row.kid: _public_key(row) for row in rows})

    def _new_key(self) -> dict[str, object]:
        key = ec.generate_private_key(ec.SECP256R1())
        jwk = public_jwk(key.public_key())
        kid = thumbprint(jwk)
        now = self._clock.now()
        return {
            "kid": kid,
            "algorithm": ALGORITHM,
            "state": "active",
            "public_jwk": jwk,
            "private_key": self._seal(kid, key),
            "created_at": now,
            "state_changed_at": now,
        }

    def _seal(self, kid: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = os.urandom(_NONCE_BYTES)
        # The id as associated data: a row's private key cannot be swapped for another row's.
        return nonce + self._cipher.encrypt(nonce, raw, kid.encode())

    def _open(self, row: SigningKeyRow) -> PrivateKey:
        nonce, sealed = row.private_key[:_NONCE_BYTES], row.private_key[_NONCE_BYTES:]
        try:
            raw = self._cipher.decrypt(nonce, sealed, row.kid.encode())
        except InvalidTag as error:
            raise KeyUndecryptable(
                f"Signing key {row.kid} was encrypted under another key_encryption_key: put that one back."
            ) from error
        key = load_der_private_key(raw, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"Signing key {row.kid} is no elliptic-curve key.")
        return PrivateKey(row.kid, row.algorithm, key)


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return the members that the key is made of (RFC 7518, section 6.2.1)."""
    return dict(ECAlgorithm.to_jwk(key, as_dict=True))


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return a key's id: SHA-256 over its required members in their one spelling (RFC 7638, section 3)."""
    required = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(required.encode()).digest()).rstrip(b"=").decode("ascii")


def _public_key(row: SigningKeyRow) -> PublicKey:
    key = ECAlgorithm.from_jwk(row.public_jwk)
    if not isinstance(key, ec.EllipticCurvePublicKey):  # the table is ours, but it is published
        raise TypeError(f"Signing key {row.kid} is no public key.")
    return PublicKey(row.kid, row.algorithm, public_jwk(key), key)


def _derive(secret: bytes) -> bytes:
    """Return the 256 bits that AES needs from a secret of any length (RFC 5869)."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=b"tequipy-auth signing keys v1").derive(secret)
