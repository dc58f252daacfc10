"""Encryption of signing keys in the database."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jwt import PyJWK

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.exceptions import KeyUnusable
from tequipy_auth.domain.ports import KeyMaker
from tequipy_auth.infrastructure.keys.jwk import (
    Private,
    PrivateKey,
    Public,
    PublicKey,
    algorithm_of,
    generate,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.settings import AlgorithmName

_NONCE_BYTES: Final = 12


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
                f"signing key {key.kid} was encrypted before this setting had versions: re-encrypt the signing keys"
                " with the newest key-encryption key.",
                remedy="reencrypt",
            )
        if version not in self._ciphers:
            raise KeyUnusable(f"signing key {key.kid} is encrypted under version {version}, which is not set.")
        nonce, encrypted = key.private_key[:_NONCE_BYTES], key.private_key[_NONCE_BYTES:]
        try:
            return self._ciphers[version].decrypt(nonce, encrypted, _associated_data(key))
        except (InvalidTag, ValueError):
            raise KeyUnusable(
                f"signing key {key.kid} was encrypted under another secret than version {version}, or its row was"
                f" changed: set that secret again, or revoke the key.",
                remedy="revoke",
                kid=key.kid,
            ) from None

    def _decrypt_unversioned(self, key: SigningKey) -> bytes:
        """Return the private key of a row without a version, in which only the key id is authenticated."""
        _check_id(key)
        nonce, encrypted = key.private_key[:_NONCE_BYTES], key.private_key[_NONCE_BYTES:]
        for cipher in self._ciphers.values():
            with suppress(InvalidTag, ValueError):
                return cipher.decrypt(nonce, encrypted, key.kid.encode())
        raise KeyUnusable(
            f"signing key {key.kid} was encrypted under a secret that is not set: set it again, or revoke the key.",
            remedy="revoke",
            kid=key.kid,
        )


def _check_id(key: SigningKey) -> None:
    """Raise `KeyUnusable` unless the key id is the thumbprint of the public key (RFC 7638)."""
    try:
        genuine = thumbprint(key.public_jwk) == key.kid
    except (KeyError, TypeError):
        genuine = False
    if not genuine:
        raise KeyUnusable(
            f"the id of signing key {key.kid} is not the thumbprint of its public half, so its row was changed:"
            " revoke the key.",
            remedy="revoke",
            kid=key.kid,
        )


def _associated_data(key: SigningKey) -> bytes:
    """Return the data of a key that never changes, in canonical form."""
    facts = {"use": "tequipy-auth signing key", "kid": key.kid, "alg": key.algorithm, "jwk": dict(key.public_jwk)}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _private_key(stored: SigningKey, raw: bytes) -> PrivateKey:
    """Return a decrypted private key; raises `KeyUnusable` when it does not belong to the public key."""
    # The data is authenticated, so the RSA primes are not tested again: that blocked the event loop for 380 ms.
    key = load_der_private_key(raw, password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, Private) or algorithm_of(key) != stored.algorithm:
        raise KeyUnusable(f"signing key {stored.kid} is of a kind that signs no {stored.algorithm} tokens.")
    if thumbprint(public_jwk(key.public_key())) != stored.kid:
        raise KeyUnusable(f"the private half of signing key {stored.kid} is another key's.")
    return PrivateKey(stored.kid, stored.algorithm, key)


def _public_key(stored: SigningKey) -> PublicKey:
    key = PyJWK(dict(stored.public_jwk), algorithm=stored.algorithm).key
    assert isinstance(key, Public)  # noqa: S101 -- PyJWK's type is wider than what an authenticated row gives
    return PublicKey(stored.kid, stored.algorithm, public_jwk(key), key)


def _derive(secret: bytes) -> bytes:
    """Derive the 256-bit AES key from a secret of any length (RFC 5869)."""
    return HKDF(hashes.SHA256(), length=32, salt=None, info=b"tequipy-auth signing keys v1").derive(secret)
