"""Signing keys: how they are made, encrypted, kept in the table, and read from files."""

import asyncio
import base64
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import select, update

from tequipy_auth import AuthPolicy, KeyService, KeyState, UnknownKey
from tequipy_auth.infrastructure.keys import (
    AlgorithmName,
    FileKeys,
    KeyUnusable,
    SealedKeys,
    StoredKeys,
    generate,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.models import SigningKeyRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryRevocations, RecordingOperations
from tequipy_platform.infrastructure.database import Database
from tequipy_platform.infrastructure.ids import uuid7
from tequipy_platform.testing import FrozenClock

SECRET = b"a key-encryption key for tests"
POLICY = AuthPolicy(public_url="https://app.example.com")
ALGORITHMS: list[AlgorithmName] = ["ES256", "RS256", "EdDSA"]


def make_sealed(secret: bytes = SECRET, algorithm: AlgorithmName = "ES256") -> SealedKeys:
    return SealedKeys(secret, algorithm=algorithm)


def make_service(database: Database) -> KeyService:
    clock = FrozenClock()
    return KeyService(
        partial(SqlAuthUnitOfWork, database, clock, uuid7),
        maker=make_sealed(),
        revocations=MemoryRevocations(clock, life=POLICY.revocation_life),
        policy=POLICY,
        clock=clock,
        operations=RecordingOperations(),
    )


def make_store(database: Database) -> StoredKeys:
    return StoredKeys(make_service(database).published, make_sealed())


async def rows(database: Database) -> dict[str, SigningKeyRow]:
    async with database.sessions() as session:
        return {row.state: row for row in await session.scalars(select(SigningKeyRow))}


def test_a_thumbprint_is_that_of_the_standard() -> None:
    """Members in one order without spaces, whatever else the key has; one value by hand, one of RFC 8037, A.3."""
    jwk = {"y": "AQ", "kty": "EC", "x": "AA", "crv": "P-256", "use": "sig"}
    # printf '{"crv":"P-256","kty":"EC","x":"AA","y":"AQ"}' | openssl dgst -sha256 -binary | basenc --base64url
    assert thumbprint(jwk) == "fpsA8udergWQQtZ5ijw9k_6RoFRa-SBsNr8jkweRkU4"
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA"}
    assert thumbprint(okp) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_key_opens_as_it_was_made(algorithm: AlgorithmName) -> None:
    """Sealed and opened again it is the same key, named by its thumbprint; every process makes the same of it."""
    made = make_sealed(algorithm=algorithm).make(KeyState.ACTIVE, FrozenClock().now())
    opened = make_sealed().open(made)
    assert opened.kid == made.kid == thumbprint(made.public_jwk)
    assert (opened.algorithm, public_jwk(opened.key.public_key())) == (algorithm, made.public_jwk)

    async def published() -> list[object]:
        return [made]

    keys = await StoredKeys(published, make_sealed()).load()  # type: ignore[arg-type]  # -- a list of one key
    assert keys.published[made.kid].key == opened.key.public_key()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_private_half_is_encrypted(algorithm: AlgorithmName) -> None:
    """Neither a private member nor PKCS #8 is to be seen, and the same key is never sealed alike."""
    sealed = make_sealed(algorithm=algorithm)
    key = sealed.make(KeyState.NEXT, FrozenClock().now())
    opened = sealed.open(key).key
    der = opened.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert der[-32:] not in key.private_key
    assert sealed._seal(key.kid, opened) != key.private_key
    assert key.public_jwk.keys() <= {"kty", "crv", "x", "y", "n", "e"}
    assert str(key.private_key) not in repr(key)
    assert base64.b64encode(der[-32:]).decode() not in repr(sealed.open(key))


def test_another_key_encryption_key_is_an_error_that_says_so() -> None:
    """Signing with an unreadable key is refused, naming the setting that differs."""
    key = make_sealed().make(KeyState.ACTIVE, FrozenClock().now())
    with pytest.raises(KeyUnusable, match="key_encryption_key"):
        make_sealed(b"another secret").open(key)


def test_a_private_key_cannot_be_moved_to_another_row() -> None:
    """The key id is sealed in: a row whose id was changed does not open."""
    key = make_sealed().make(KeyState.ACTIVE, FrozenClock().now())
    with pytest.raises(KeyUnusable):
        make_sealed().open(replace(key, kid="another"))


async def test_the_first_use_fills_the_table(database: Database) -> None:
    """An empty table gets an active key and the next one, and later loads find them."""
    made = await make_store(database).load()
    found = await make_store(database).load()
    assert made.active.kid == found.active.kid
    assert public_jwk(made.active.key.public_key()) == public_jwk(found.active.key.public_key())
    kept = await rows(database)
    assert kept["active"].kid == made.active.kid
    assert found.published.keys() == {kept["active"].kid, kept["next"].kid}


async def test_processes_that_start_at_once_agree_on_one_key(database: Database) -> None:
    """Of ten concurrent first loads one makes the keys and all return them."""
    loaded = await asyncio.gather(*(make_store(database).load() for _ in range(10)))
    assert len({keys.active.kid for keys in loaded}) == 1
    assert len(loaded[0].published) == 2


async def test_of_processes_that_revoke_a_key_at_once_one_does(database: Database) -> None:
    """The others learn that it is gone; one key takes its place, and one is made to follow."""
    kid = (await make_store(database).load()).active.kid
    answers = await asyncio.gather(*(make_service(database).revoke(kid) for _ in range(6)), return_exceptions=True)
    assert sorted(map(type, answers), key=str) == [type(None), *[UnknownKey] * 5]
    states = [key.state for key in await make_service(database).keys()]
    assert sorted(state.value for state in states) == ["active", "next", "revoked"]


async def test_a_revoked_key_is_not_published(database: Database) -> None:
    """What the table calls revoked is in no key set."""
    await make_store(database).load()
    async with database.sessions.begin() as session:
        await session.execute(update(SigningKeyRow).where(SigningKeyRow.state == "next").values(state="revoked"))
    assert (await make_store(database).load()).published.keys() == {(await rows(database))["active"].kid}


def write_pem(path: Path, key: object) -> None:
    assert hasattr(key, "private_bytes")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


async def test_keys_are_read_from_files(tmp_path: Path) -> None:
    """`active.pem` signs, every other file is published beside it; each has the algorithm of its kind."""
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
async def test_a_file_that_cannot_sign_is_named(tmp_path: Path, key: object, complaint: str) -> None:
    """The message names the file and what is needed, and shows nothing of what is in it."""
    write_pem(tmp_path / "other.pem", ed25519.Ed25519PrivateKey.generate())
    if isinstance(key, bytes):
        (tmp_path / "active.pem").write_bytes(key)
    elif key is not None:
        write_pem(tmp_path / "active.pem", key)
    with pytest.raises(KeyUnusable, match=complaint) as refusal:
        await FileKeys(tmp_path).load()
    assert str(tmp_path) in str(refusal.value)
    assert "rubbish" not in str(refusal.value)
