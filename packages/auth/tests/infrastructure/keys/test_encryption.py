"""Encryption of private keys: its versions, wrong secrets, and any change of a stored key."""

import base64
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tequipy_auth import KeyMaker, KeyState, KeyUnusable, SigningKey
from tequipy_auth.infrastructure.keys import StoredKeys, public_jwk, thumbprint
from tequipy_auth.infrastructure.settings import AlgorithmName
from tequipy_auth.testing import FakeKeyMaker
from tequipy_platform import Unavailable
from tequipy_platform.testing import FrozenClock

from .signing_keys import ALGORITHMS, OTHER, SECRET, make_encrypted, make_key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_decrypted_key_equals_the_created_one(algorithm: AlgorithmName) -> None:
    """Every process with the same key-encryption key decrypts the same key, named by its thumbprint."""
    made = make_encrypted(algorithm=algorithm).make(KeyState.ACTIVE, FrozenClock().now())
    opened = make_encrypted().open(made)
    assert opened.kid == made.kid == thumbprint(made.public_jwk)
    assert (opened.algorithm, public_jwk(opened.key.public_key())) == (algorithm, made.public_jwk)

    async def published() -> list[SigningKey]:
        return [made]

    keys = await StoredKeys(published, make_encrypted()).load()
    assert keys.published[made.kid].key == opened.key.public_key()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_private_key_is_encrypted(algorithm: AlgorithmName) -> None:
    """The row contains neither private members nor PKCS #8, and repeated encryption gives different results."""
    encrypted = make_encrypted({1: SECRET, 2: OTHER}, algorithm=algorithm)
    key = make_key(make_encrypted(algorithm=algorithm))
    opened = encrypted.open(key).key
    der = opened.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert der[-32:] not in key.private_key
    first, second = encrypted.reencrypt(key), encrypted.reencrypt(key)
    assert first is not None
    assert second is not None
    assert first.private_key != second.private_key
    assert key.public_jwk.keys() <= {"kty", "crv", "x", "y", "n", "e"}
    assert str(key.private_key) not in repr(key)
    assert base64.b64encode(der[-32:]).decode() not in repr(encrypted.open(key))


@pytest.fixture(params=["real", "fake"])
def makers(request: pytest.FixtureRequest) -> Callable[[Collection[int]], KeyMaker]:
    """Return functions that create real and fake key makers with the given key-encryption keys."""

    def make(versions: Collection[int]) -> KeyMaker:
        if request.param == "real":
            return make_encrypted({version: f"secret {version}".encode() for version in versions})
        fake = FakeKeyMaker()
        fake.versions = set(versions)
        return fake

    return make


def test_a_key_moves_to_the_newest_version(makers: Callable[[Collection[int]], KeyMaker]) -> None:
    """A key is created with the newest version, usable while that is configured, and re-encrypted once."""
    key = make_key(makers({1}))
    both = makers({1, 2})
    both.check(key)
    moved = both.reencrypt(key)
    assert moved is not None
    assert (key.encryption_version, moved.encryption_version) == (1, 2)
    assert replace(moved, private_key=key.private_key, encryption_version=1) == key
    assert both.reencrypt(moved) is None
    makers({2}).check(moved)


def test_a_missing_version_is_an_error(makers: Callable[[Collection[int]], KeyMaker]) -> None:
    """Without its key-encryption key a key cannot sign or be re-encrypted; nor can a revoked key."""
    key = make_key(makers({1}))
    for refused in (key, replace(key, encryption_version=2, private_key=b"")):
        for operation in (makers({2}).check, makers({2}).reencrypt):
            with pytest.raises(KeyUnusable):
                operation(refused)


def test_a_wrong_key_encryption_key_is_reported() -> None:
    """The message names the setting, the key, the version and the remedy, and contains no secret."""
    key = make_key()
    for secrets, words in ({1: OTHER}, ["another secret than version 1"]), ({2: SECRET}, ["version 1", "not set"]):
        with pytest.raises(KeyUnusable) as refusal:
            make_encrypted(secrets).open(key)
        message = str(refusal.value)
        assert message.startswith(f"key_encryption_key: signing key {key.kid}")
        assert all(word in message for word in words)
        assert SECRET.decode() not in message
        assert (refusal.value.detail, refusal.value.__cause__) == (Unavailable.detail, None)


def foreign_facts() -> list[dict[str, Any]]:
    other = make_key()
    jwk = dict(make_key().public_jwk)
    return [
        {"public_jwk": other.public_jwk},
        {"public_jwk": other.public_jwk, "kid": other.kid},
        {"public_jwk": other.public_jwk, "kid": other.kid, "private_key": other.private_key[::-1]},
        {"kid": "another"},
        {"private_key": other.private_key},
        {"private_key": b""},
        {"algorithm": "EdDSA"},
        {"public_jwk": {}},
        {"public_jwk": {"kty": "oct", "k": "AAAA"}},
        {"public_jwk": {**jwk, "kty": ["EC"]}},
        {"public_jwk": {**jwk, "x": jwk["y"]}},
        {"encryption_version": 2},
        {"encryption_version": None},
    ]


@pytest.mark.parametrize("changed", foreign_facts(), ids="+".join)
def test_any_change_of_a_row_is_detected(changed: dict[str, Any]) -> None:
    """Id, algorithm, public and private key cannot be changed or swapped, alone or together."""
    encrypted = make_encrypted({1: SECRET, 2: SECRET + b"2"})
    key = replace(make_key(), **{"encryption_version": 1, **changed})
    for operation in (encrypted.open, encrypted.publish):
        with pytest.raises(KeyUnusable):
            operation(key)


@given(data=st.data())
def test_any_change_of_the_encrypted_private_key_is_detected(data: st.DataObject) -> None:
    """A row is refused after any bit flip, truncation or extension."""
    encrypted = make_encrypted()
    key = make_key(encrypted)
    position = data.draw(st.integers(0, len(key.private_key) - 1))
    flipped = bytearray(key.private_key)
    flipped[position] ^= data.draw(st.integers(1, 255))
    for changed in (bytes(flipped), key.private_key[:position], key.private_key + b"\0"):
        with pytest.raises(KeyUnusable):
            encrypted.publish(replace(key, private_key=changed))


def encrypted_before_versions(key: SigningKey, *, secret: bytes = SECRET) -> SigningKey:
    """Return the key as it was stored before versions existed, with only the id authenticated."""
    opened = make_encrypted().open(key).key
    der = opened.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    derived = HKDF(hashes.SHA256(), length=32, salt=None, info=b"tequipy-auth signing keys v1").derive(secret)
    nonce = bytes(12)
    raw = nonce + AESGCM(derived).encrypt(nonce, der, key.kid.encode())
    return replace(key, private_key=raw, encryption_version=None)


def test_a_key_without_a_version_is_re_encrypted() -> None:
    """It is refused with the advice to re-encrypt it, whichever version its secret has now."""
    key = make_key()
    old = encrypted_before_versions(key)
    encrypted = make_encrypted({1: OTHER, 2: SECRET, 3: OTHER + b"3"})
    with pytest.raises(KeyUnusable, match="re-encrypt the signing keys") as refusal:
        encrypted.publish(old)
    assert refusal.value.remedy == "reencrypt"
    renewed = encrypted.reencrypt(old)
    assert renewed is not None
    assert renewed.encryption_version == 3
    assert encrypted.publish(renewed).jwk == key.public_jwk
    with pytest.raises(KeyUnusable):
        encrypted.reencrypt(replace(old, public_jwk=make_key().public_jwk))
    with pytest.raises(KeyUnusable, match="is not set"):
        make_encrypted({1: OTHER}).reencrypt(old)
