"""Signing keys in memory: generation, public members, and ids (RFC 7517, RFC 7638)."""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tequipy_auth.infrastructure.settings import AlgorithmName

Private: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

Public: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

RSA_BITS: Final = 3072
"""A strength of 128 bits, like the two curves (NIST SP 800-57 part 1, table 2)."""

_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
"""The required public members by key type, in the order for the thumbprint (RFC 7638, section 3.2)."""


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


def algorithm_of(key: object) -> AlgorithmName | None:
    """Return the algorithm that a private key signs with, or None for a key of another kind or size."""
    match key:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return "ES256"
        case rsa.RSAPrivateKey(key_size=bits) if bits >= 2048:  # noqa: PLR2004 -- RFC 7518, section 3.3
            return "RS256"
        case ed25519.Ed25519PrivateKey():
            return "EdDSA"
        case _:
            return None
