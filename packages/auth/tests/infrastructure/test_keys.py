"""Signing keys: creation, encryption, storage, and loading from files."""

import asyncio
import base64
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from tequipy_auth import AuthPolicy, KeyMaker, KeyService, KeyState, KeyUnusable, SigningKey, UnknownKey
from tequipy_auth.infrastructure.keys import (
    AlgorithmName,
    EncryptedKeys,
    FileKeys,
    StoredKeys,
    generate,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.models import SigningKeyRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import FakeKeyMaker, MemoryRevocations, RecordingOperations
from tequipy_platform import Unavailable
from tequipy_platform.database import Database, uuid7
from tequipy_platform.testing import FrozenClock

SECRET = b"a key-encryption key for tests"
OTHER = b"another key-encryption key"
POLICY = AuthPolicy()
ALGORITHMS: list[AlgorithmName] = ["ES256", "RS256", "EdDSA"]


def make_encrypted(secrets: Mapping[int, bytes] | None = None, *, algorithm: AlgorithmName = "ES256") -> EncryptedKeys:
    return EncryptedKeys(secrets or {1: SECRET}, algorithm=algorithm)


def make_key(maker: KeyMaker | None = None) -> SigningKey:
    return (maker or make_encrypted()).make(KeyState.ACTIVE, FrozenClock().now())


def make_service(database: Database) -> KeyService:
    clock = FrozenClock()
    return KeyService(
        partial(SqlAuthUnitOfWork, database, clock, uuid7),
        maker=make_encrypted(),
        revocations=MemoryRevocations(clock, ttl=POLICY.revocation_ttl),
        policy=POLICY,
        clock=clock,
        operations=RecordingOperations(),
    )


def make_store(database: Database) -> StoredKeys:
    return StoredKeys(make_service(database).published, make_encrypted())


async def rows(database: Database) -> dict[str, SigningKeyRow]:
    async with database.sessions() as session:
        return {row.state: row for row in await session.scalars(select(SigningKeyRow))}


def test_thumbprints_follow_rfc_7638() -> None:
    """The thumbprint ignores other members; one value is computed by hand, one is from RFC 8037, A.3."""
    jwk = {"y": "AQ", "kty": "EC", "x": "AA", "crv": "P-256", "use": "sig"}
    # printf '{"crv":"P-256","kty":"EC","x":"AA","y":"AQ"}' | openssl dgst -sha256 -binary | basenc --base64url
    assert thumbprint(jwk) == "fpsA8udergWQQtZ5ijw9k_6RoFRa-SBsNr8jkweRkU4"
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA"}
    assert thumbprint(okp) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


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
    """It is refused with the command that re-encrypts it, whichever version its secret has now."""
    key = make_key()
    old = encrypted_before_versions(key)
    encrypted = make_encrypted({1: OTHER, 2: SECRET, 3: OTHER + b"3"})
    with pytest.raises(KeyUnusable, match="tequipy-api keys reseal"):
        encrypted.publish(old)
    renewed = encrypted.reencrypt(old)
    assert renewed is not None
    assert renewed.encryption_version == 3
    assert encrypted.publish(renewed).jwk == key.public_jwk
    with pytest.raises(KeyUnusable):
        encrypted.reencrypt(replace(old, public_jwk=make_key().public_jwk))
    with pytest.raises(KeyUnusable, match="is not set"):
        make_encrypted({1: OTHER}).reencrypt(old)


async def test_only_the_active_key_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    """A key that cannot be decrypted is excluded and logged once; for the active key this is an error."""
    active, foreign = make_key(), replace(make_key(make_encrypted({1: OTHER})), state=KeyState.RETIRING)
    held = [active, foreign]

    async def published() -> list[SigningKey]:
        return held

    store = StoredKeys(published, make_encrypted())
    for _ in range(3):
        assert (await store.load()).published.keys() == {active.kid}
    (record,) = caplog.records
    assert (record.message, vars(record)["kid"]) == ("signing_key_excluded", foreign.kid)
    assert f"`tequipy-api keys revoke {foreign.kid}`" in vars(record)["error"]
    held = [replace(foreign, state=KeyState.ACTIVE)]
    with pytest.raises(KeyUnusable):
        await store.load()


async def test_the_first_use_creates_the_keys(database: Database) -> None:
    """An empty table gets an active and a next key, which later loads return."""
    made = await make_store(database).load()
    found = await make_store(database).load()
    assert made.active.kid == found.active.kid
    assert public_jwk(made.active.key.public_key()) == public_jwk(found.active.key.public_key())
    kept = await rows(database)
    assert kept["active"].kid == made.active.kid
    assert found.published.keys() == {kept["active"].kid, kept["next"].kid}


async def test_concurrent_first_loads_create_one_key(database: Database) -> None:
    """Of ten concurrent first loads one creates the keys and all return them."""
    loaded = await asyncio.gather(*(make_store(database).load() for _ in range(10)))
    assert len({keys.active.kid for keys in loaded}) == 1
    assert len(loaded[0].published) == 2


async def test_one_of_several_concurrent_revocations_succeeds(database: Database) -> None:
    """The others get an error; one key becomes active, and one next key is created."""
    kid = (await make_store(database).load()).active.kid
    answers = await asyncio.gather(*(make_service(database).revoke(kid) for _ in range(6)), return_exceptions=True)
    assert sorted(map(type, answers), key=str) == [type(None), *[UnknownKey] * 5]
    states = [key.state for key in await make_service(database).keys()]
    assert sorted(state.value for state in states) == ["active", "next", "revoked"]


async def test_a_revoked_key_is_not_published(database: Database) -> None:
    """A revoked key is not in the key set."""
    await make_store(database).load()
    async with database.sessions.begin() as session:
        await session.execute(update(SigningKeyRow).where(SigningKeyRow.state == "next").values(state="revoked"))
    assert (await make_store(database).load()).published.keys() == {(await rows(database))["active"].kid}


def write_pem(path: Path, key: object) -> None:
    assert hasattr(key, "private_bytes")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


async def test_keys_are_read_from_files(tmp_path: Path) -> None:
    """`active.pem` signs and all other files are published; the kind of key determines the algorithm."""
    keys = {name: generate(algorithm) for name, algorithm in zip(("active", "next", "old"), ALGORITHMS, strict=True)}
    for name, key in keys.items():
        write_pem(tmp_path / f"{name}.pem", key)
    (tmp_path / "README").write_text("no key")
    loaded = await FileKeys(tmp_path).load()
    assert loaded.active.kid == thumbprint(public_jwk(keys["active"].public_key()))
    assert {key.algorithm for key in loaded.published.values()} == set(ALGORITHMS)
    (tmp_path / "next.pem").rename(tmp_path / "active.pem")
    assert (await FileKeys(tmp_path).load()).active.algorithm == "RS256"


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "a P-256, an Ed25519 or an RSA key"),
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), "at least 2048 bits"),  # noqa: S505 -- refused
        (dsa.generate_private_key(1024), "is needed"),  # noqa: S505 -- as above
        (b"rubbish", "no unencrypted private key"),
        (None, r"no active\.pem"),
    ],
    ids=["P-384", "short RSA", "DSA", "rubbish", "none"],
)
async def test_an_unusable_key_file_is_named(tmp_path: Path, key: object, complaint: str) -> None:
    """The message names the file and the requirement, and contains none of its content."""
    write_pem(tmp_path / "other.pem", ed25519.Ed25519PrivateKey.generate())
    if isinstance(key, bytes):
        (tmp_path / "active.pem").write_bytes(key)
    elif key is not None:
        write_pem(tmp_path / "active.pem", key)
    with pytest.raises(KeyUnusable, match=complaint) as refusal:
        await FileKeys(tmp_path).load()
    assert str(tmp_path) in str(refusal.value)
    assert "rubbish" not in str(refusal.value)
