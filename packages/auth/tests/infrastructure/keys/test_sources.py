"""Loading of signing keys from the database and from files."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import select, update

from tequipy_auth import AuthPolicy, KeyService, KeyState, KeyUnusable, SigningKey, UnknownKey
from tequipy_auth.infrastructure.keys import FileKeys, StoredKeys, generate, public_jwk, thumbprint
from tequipy_auth.infrastructure.models import SigningKeyRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.testing import MemoryRevocations, RecordingOperations
from tequipy_platform.database import Database, uuid7
from tequipy_platform.testing import FrozenClock

from .signing_keys import ALGORITHMS, OTHER, make_encrypted, make_key

POLICY = AuthPolicy()


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
    assert vars(record)["error"].endswith("or revoke the key.")
    held = [replace(foreign, state=KeyState.ACTIVE)]
    with pytest.raises(KeyUnusable) as refusal:
        await store.load()
    assert (refusal.value.remedy, refusal.value.kid) == ("revoke", foreign.kid)


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
