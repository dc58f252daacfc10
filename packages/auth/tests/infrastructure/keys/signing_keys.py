"""Signing keys, and what encrypts them."""

from collections.abc import Mapping

from tequipy_auth import KeyMaker, KeyState, SigningKey
from tequipy_auth.infrastructure.keys import EncryptedKeys
from tequipy_auth.infrastructure.settings import AlgorithmName
from tequipy_platform.testing import FrozenClock

SECRET = b"a key-encryption key for tests"
OTHER = b"another key-encryption key"
ALGORITHMS: list[AlgorithmName] = ["ES256", "RS256", "EdDSA"]


def make_encrypted(secrets: Mapping[int, bytes] | None = None, *, algorithm: AlgorithmName = "ES256") -> EncryptedKeys:
    return EncryptedKeys(secrets or {1: SECRET}, algorithm=algorithm)


def make_key(maker: KeyMaker | None = None) -> SigningKey:
    return (maker or make_encrypted()).make(KeyState.ACTIVE, FrozenClock().now())
