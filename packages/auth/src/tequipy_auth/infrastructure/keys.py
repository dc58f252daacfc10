"""Signing keys: generation, encryption, and loading from the database or from files."""

import asyncio
import hashlib
import json
import logging
import os
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from tequipy_auth.domain.exceptions import KeyUnusable
from tequipy_auth.domain.ports import KeyMaker

AlgorithmName = Literal["ES256", "RS256", "EdDSA"]
"""ECDSA on P-256 (RFC 7518, section 3.4), RSASSA-PKCS1-v1_5 (3.3) and Ed25519 (RFC 8037, section 3.1)."""

Private: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Public: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

RSA_BITS: Final = 3072
"""A strength of 128 bits, like the two curves (NIST SP 800-57 part 1, table 2)."""

_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
"""The required public members by key type, in the order for the thumbprint (RFC 7638, section 3.2)."""

_NONCE_BYTES: Final = 12

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies tokens; `jwk` contains only the public members (RFC 7517)."""

    kid: str
    algorithm: str
    jwk: Mapping[str, str]
    key: Public


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs tokens."""

    kid: str
    algorithm: str
    key: Private = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The active key, and all published keys by id."""

    active: PrivateKey
    published: Mapping[str, PublicKey]


class EncryptedKeys(KeyMaker):
    """Creates keys and encrypts their private halves with AES-GCM under the newest key-encryption key.

    Key id, algorithm and public key are the associated data (NIST SP 800-38D), so that any change of a row is detected.
    A person who can write to the table but has no key-encryption key cannot publish a key of their own.
    """

    def __init__(self, key_encryption_keys: Mapping[int, bytes], *, algorithm: AlgorithmName) -> None:
        self._ciphers = {version: AESGCM(_derive(secret)) for version, secret in key_encryption_keys.items()}
        self._newest = max(key_encryption_keys)
        self._algorithm = algorithm

    def make(self, state: KeyState, now: datetime) -> SigningKey:
        """Return a new key."""
        key = generate(self._algorithm)
        jwk = public_jwk(key.public_key())
        unencrypted = SigningKey(thumbprint(jwk), self._algorithm, state, jwk, b"", None, now, now)
        return self._encrypt(unencrypted, key)

    def check(self, key: SigningKey) -> None:
        """Raise `KeyUnusable` unless the private key can be decrypted."""
        self.open(key)

    def open(self, key: SigningKey) -> PrivateKey:
        """Return the decrypted private key; raises `KeyUnusable`."""
        return _private_key(key, self._decrypt(key))

    def publish(self, key: SigningKey) -> PublicKey:
        """Return the public key after authenticating it; raises `KeyUnusable`."""
        self._decrypt(key)
        return _public_key(key)

    def reencrypt(self, key: SigningKey) -> SigningKey | None:
        """Return the key encrypted with the newest key-encryption key, None if it already is; raises `KeyUnusable`."""
        if key.encryption_version is None:
            return self._encrypt(key, _private_key(key, self._decrypt_unversioned(key)).key)
        opened = self.open(key)
        return None if key.encryption_version == self._newest else self._encrypt(key, opened.key)

    def _encrypt(self, key: SigningKey, private: Private) -> SigningKey:
        raw = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = os.urandom(_NONCE_BYTES)
        encrypted = nonce + self._ciphers[self._newest].encrypt(nonce, raw, _associated_data(key))
        return replace(key, private_key=encrypted, encryption_version=self._newest)

    def _decrypt(self, key: SigningKey) -> bytes:
        """Return the private key in PKCS #8 after authenticating the row."""
        _check_id(key)
        version = key.encryption_version
        if version is None:
            raise KeyUnusable(
                f"signing key {key.kid} was encrypted before this setting had versions: run `tequipy-api keys reseal`."
            )
        if version not in self._ciphers:
            raise KeyUnusable(f"signing key {key.kid} is encrypted under version {version}, which is not set.")
        nonce, encrypted = key.private_key[:_NONCE_BYTES], key.private_key[_NONCE_BYTES:]
        try:
            return self._ciphers[version].decrypt(nonce, encrypted, _associated_data(key))
        except (InvalidTag, ValueError):
            raise KeyUnusable(
                f"signing key {key.kid} was encrypted under another secret than version {version}, or its row was"
                f" changed: set that secret again, or `tequipy-api keys revoke {key.kid}`."
            ) from None

    def _decrypt_unversioned(self, key: SigningKey) -> bytes:
        """Return the private key of a row without a version, in which only the key id is authenticated."""
        _check_id(key)
        nonce, encrypted = key.private_key[:_NONCE_BYTES], key.private_key[_NONCE_BYTES:]
        for cipher in self._ciphers.values():
            with suppress(InvalidTag, ValueError):
                return cipher.decrypt(nonce, encrypted, key.kid.encode())
        raise KeyUnusable(
            f"signing key {key.kid} was encrypted under a secret that is not set: set it again, or"
            f" `tequipy-api keys revoke {key.kid}`."
        )


class StoredKeys:
    """Loads the key set from the keys that `published` returns."""

    def __init__(self, published: Callable[[], Awaitable[Sequence[SigningKey]]], encrypted: EncryptedKeys) -> None:
        self._published = published
        self._encrypted = encrypted
        self._refused: set[str] = set()

    async def load(self) -> KeySet:
        """Return the keys; raises `KeyUnusable` for the active key, and `Unavailable` without a database.

        Any other key that cannot be decrypted is left out, and logged once as `signing_key_excluded`.
        """
        keys = await self._published()
        active = next(key for key in keys if key.state is KeyState.ACTIVE)
        opened = self._encrypted.open(active)
        published = [self._publish(key) for key in keys]
        return KeySet(opened, {key.kid: key for key in published if key is not None})

    def _publish(self, key: SigningKey) -> PublicKey | None:
        try:
            return self._encrypted.publish(key)
        except KeyUnusable as error:
            if key.kid not in self._refused:
                _logger.error("signing_key_excluded", extra={"kid": key.kid, "error": str(error)})  # noqa: TRY400 -- a traceback adds nothing
            self._refused.add(key.kid)
            return None


class FileKeys:
    """Loads the key set from a folder, as a secret manager mounts it: private keys in PKCS #8 PEM.

    `active.pem` signs; every other `*.pem` is only published. To rotate, add the file of the next key, wait for the
    max-age of the key set, swap the two names, and remove the old file when its last token has expired.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self) -> KeySet:
        """Return the keys; raises `KeyUnusable`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> KeySet:
        keys = {path.name: _read_pem(path) for path in sorted(self._folder.glob("*.pem"))}
        if "active.pem" not in keys:
            raise _file_error(f"there is no active.pem in {self._folder}: put the key there that is to sign.")
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
    """Return the public members of a key as a JSON Web Key (RFC 7518, section 6; RFC 8037, section 2)."""
    match key:
        case ec.EllipticCurvePublicKey():
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
        case rsa.RSAPublicKey():
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        case _:
            jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the key id: SHA-256 over the required members in canonical form (RFC 7638, section 3)."""
    required = json.dumps({name: jwk[name] for name in _MEMBERS[jwk["kty"]]}, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(required.encode()).digest()).rstrip(b"=").decode("ascii")


def _check_id(key: SigningKey) -> None:
    """Raise `KeyUnusable` unless the key id is the thumbprint of the public key (RFC 7638)."""
    try:
        genuine = thumbprint(key.public_jwk) == key.kid
    except (KeyError, TypeError):
        genuine = False
    if not genuine:
        raise KeyUnusable(
            f"the id of signing key {key.kid} is not the thumbprint of its public half, so its row was changed:"
            f" `tequipy-api keys revoke {key.kid}`."
        )


def _associated_data(key: SigningKey) -> bytes:
    """Return the data of a key that never changes, in canonical form."""
    facts = {"use": "tequipy-auth signing key", "kid": key.kid, "alg": key.algorithm, "jwk": dict(key.public_jwk)}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _private_key(stored: SigningKey, raw: bytes) -> PrivateKey:
    """Return a decrypted private key; raises `KeyUnusable` when it does not belong to the public key."""
    # The data is authenticated, so the RSA primes are not tested again: that blocked the event loop for 380 ms.
    key = load_der_private_key(raw, password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, Private) or _algorithm_of(key) != stored.algorithm:
        raise KeyUnusable(f"signing key {stored.kid} is of a kind that signs no {stored.algorithm} tokens.")
    if thumbprint(public_jwk(key.public_key())) != stored.kid:
        raise KeyUnusable(f"the private half of signing key {stored.kid} is another key's.")
    return PrivateKey(stored.kid, stored.algorithm, key)


def _public_key(stored: SigningKey) -> PublicKey:
    key = PyJWK(dict(stored.public_jwk), algorithm=stored.algorithm).key
    assert isinstance(key, Public)  # noqa: S101 -- PyJWK's type is wider than what an authenticated row gives
    return PublicKey(stored.kid, stored.algorithm, public_jwk(key), key)


def _read_pem(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _file_error(f"{path} holds no unencrypted private key in PEM.") from error
    algorithm = _algorithm_of(key)
    if algorithm is None or not isinstance(key, Private):
        raise _file_error(f"{path}: a P-256, an Ed25519 or an RSA key of at least 2048 bits is needed.")
    return PrivateKey(thumbprint(public_jwk(key.public_key())), algorithm, key)


def _file_error(reason: str) -> KeyUnusable:
    return KeyUnusable(reason, setting="signing_keys_folder")


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
    """Derive the 256-bit AES key from a secret of any length (RFC 5869)."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=b"tequipy-auth signing keys v1").derive(secret)
