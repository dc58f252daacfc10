"""Signing keys: generation, encryption, and loading from the database or from files."""

from tequipy_auth.infrastructure.keys.encryption import EncryptedKeys
from tequipy_auth.infrastructure.keys.jwk import (
    KeySet,
    PrivateKey,
    PublicKey,
    generate,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.keys.sources import FileKeys, StoredKeys

__all__ = [
    "EncryptedKeys",
    "FileKeys",
    "KeySet",
    "PrivateKey",
    "PublicKey",
    "StoredKeys",
    "generate",
    "public_jwk",
    "thumbprint",
]
