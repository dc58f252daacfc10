"""The keys that sign access tokens: how they are made, encrypted, and read from the table or from files."""

import asyncio
import hashlib
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.ports import KeyMaker

AlgorithmName = Literal["ES256", "RS256", "EdDSA"]
"""ECDSA on P-256 (RFC 7518, section 3.4), RSASSA-PKCS1-v1_5 (3.3) and Ed25519 (RFC 8037, section 3.1)."""

Private: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Public: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

RSA_BITS: Final = 3072
"""128 bits of strength, as the two curves have (NIST SP 800-57 part 1, table 2)."""

_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
"""By key type the public members, all of them required, in the order of the thumbprint (RFC 7638, section 3.2)."""

_NONCE_BYTES: Final = 12


class KeyUnusable(Exception):
    """A private key cannot be read; the message names it and how to mend it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What verifies a token: `jwk` has the public members alone (RFC 7517)."""

    kid: str
    algorithm: str
    jwk: Mapping[str, str]
    key: Public


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs a token."""

    kid: str
    algorithm: str
    key: Private = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The active key, and by key id all that may have signed a token or soon will."""

    active: PrivateKey
    published: Mapping[str, PublicKey]


class SealedKeys(KeyMaker):
    """Makes keys and encrypts their private halves by AES-GCM under the key-encryption key of the settings."""

    def __init__(self, key_encryption_key: bytes, *, algorithm: AlgorithmName) -> None:
        self._cipher = AESGCM(_derive(key_encryption_key))
        self._algorithm = algorithm

    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return a new key."""
        key = generate(self._algorithm)
        jwk = public_jwk(key.public_key())
        kid = thumbprint(jwk)
        return SigningKey(kid, self._algorithm, state, jwk, self._seal(kid, key), now, now)

    def open(self, key: SigningKey) -> PrivateKey:
        """Return the private half; raises `KeyUnusable`."""
        nonce, sealed = key.private_key[:_NONCE_BYTES], key.private_key[_NONCE_BYTES:]
        try:
            raw = self._cipher.decrypt(nonce, sealed, key.kid.encode())
        except InvalidTag as error:
            raise KeyUnusable(
                f"Signing key {key.kid} was encrypted under another key_encryption_key: put that one back."
            ) from error
        opened = load_der_private_key(raw, password=None)
        if not isinstance(opened, Private):
            raise KeyUnusable(f"Signing key {key.kid} is of a kind that signs no tokens.")
        return PrivateKey(key.kid, key.algorithm, opened)

    def _seal(self, kid: str, key: Private) -> bytes:
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = os.urandom(_NONCE_BYTES)
        # The id as associated data: a row's private key cannot be swapped for another row's.
        return nonce + self._cipher.encrypt(nonce, raw, kid.encode())


class StoredKeys:
    """Reads the key set from where `published` keeps it."""

    def __init__(self, published: Callable[[], Awaitable[Sequence[SigningKey]]], sealed: SealedKeys) -> None:
        self._published = published
        self._sealed = sealed

    async def load(self) -> KeySet:
        """Return the keys; raises `KeyUnusable`, and `Unavailable` when the database is away."""
        keys = await self._published()
        active = next(key for key in keys if key.state is KeyState.ACTIVE)
        return KeySet(self._sealed.open(active), {key.kid: _public_key(key) for key in keys})


class FileKeys:
    """Reads the key set from a folder, as a secret manager mounts it: private keys in PKCS #8 PEM.

    `active.pem` signs; every other `*.pem` is published beside it. To rotate, add the next key's file, wait for the key
    set's max-age, swap the two names, and remove the old file when its last token has expired.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self) -> KeySet:
        """Return the keys; raises `KeyUnusable`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> KeySet:
        keys = {path.name: _read_pem(path) for path in sorted(self._folder.glob("*.pem"))}
        if "active.pem" not in keys:
            raise KeyUnusable(f"There is no active.pem in {self._folder}: put the key there that is to sign.")
        published = [
            PublicKey(key.kid, key.algorithm, public_jwk(key.key.public_key()), key.key.public_key())
            for key in keys.values()
        ]
        return KeySet(keys["active.pem"], {key.kid: key for key in published})


def generate(algorithm: AlgorithmName) -> Private:
    """Return a new private key for an algorithm."""
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: Public) -> dict[str, str]:
    """Return the members that a public key is made of (RFC 7518, section 6; RFC 8037, section 2), and no others."""
    match key:
        case ec.EllipticCurvePublicKey():
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
        case rsa.RSAPublicKey():
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        case _:
            jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return a key's id: SHA-256 over its required members in their one spelling (RFC 7638, section 3)."""
    required = json.dumps({name: jwk[name] for name in _MEMBERS[jwk["kty"]]}, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(required.encode()).digest()).rstrip(b"=").decode("ascii")


def _public_key(stored: SigningKey) -> PublicKey:
    key = PyJWK(dict(stored.public_jwk), algorithm=stored.algorithm).key
    if not isinstance(key, Public):  # the table is ours, but it is published
        raise KeyUnusable(f"Signing key {stored.kid} is no public key.")
    return PublicKey(stored.kid, stored.algorithm, public_jwk(key), key)


def _read_pem(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{path} holds no unencrypted private key in PEM.") from error
    algorithm = _algorithm_of(key)
    if algorithm is None or not isinstance(key, Private):
        raise KeyUnusable(f"{path}: a P-256, an Ed25519 or an RSA key of at least 2048 bits is needed.")
    return PrivateKey(thumbprint(public_jwk(key.public_key())), algorithm, key)


def _algorithm_of(key: object) -> AlgorithmName | None:
    match key:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return "ES256"
        case rsa.RSAPrivateKey(key_size=bits) if bits >= 2048:  # noqa: PLR2004 -- RFC 7518, section 3.3
            return "RS256"
        case ed25519.Ed25519PrivateKey():
            return "EdDSA"
        case _:
            return None


def _derive(secret: bytes) -> bytes:
    """Return the 256 bits that AES needs from a secret of any length (RFC 5869)."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=b"tequipy-auth signing keys v1").derive(secret)
