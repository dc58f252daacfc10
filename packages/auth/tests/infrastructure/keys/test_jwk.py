"""Thumbprints of public keys."""

from tequipy_auth.infrastructure.keys import thumbprint


def test_thumbprints_follow_rfc_7638() -> None:
    """The thumbprint ignores other members; one value is computed by hand, one is from RFC 8037, A.3."""
    jwk = {"y": "AQ", "kty": "EC", "x": "AA", "crv": "P-256", "use": "sig"}
    # printf '{"crv":"P-256","kty":"EC","x":"AA","y":"AQ"}' | openssl dgst -sha256 -binary | basenc --base64url
    assert thumbprint(jwk) == "fpsA8udergWQQtZ5ijw9k_6RoFRa-SBsNr8jkweRkU4"
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA"}
    assert thumbprint(okp) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
