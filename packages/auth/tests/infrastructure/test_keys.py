"""Signing keys: the table, the encryption, and the ring that each process holds."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select, update

from tequipy_auth.infrastructure.keys import (
    KeyRing,
    KeySet,
    KeyUndecryptable,
    PrivateKey,
    PublicKey,
    SqlSigningKeys,
    public_jwk,
    thumbprint,
)
from tequipy_auth.infrastructure.models import SigningKeyRow
from tequipy_platform import Unavailable
from tequipy_platform.infrastructure.database import Database
from tequipy_platform.testing import CountingIds, FrozenClock

SECRET = b"a key-encryption key for tests"


def make_store(database: Database, secret: bytes = SECRET) -> SqlSigningKeys:
    return SqlSigningKeys(database, key_encryption_key=secret, clock=FrozenClock(), new_id=CountingIds())


async def rows(database: Database) -> list[SigningKeyRow]:
    async with database.sessions() as session:
        return list(await session.scalars(select(SigningKeyRow)))


def test_a_thumbprint_is_that_of_the_standard() -> None:
    """Members in one order without spaces, whatever else the key has (RFC 7638, section 3; value by hand)."""
    jwk = {"y": "AQ", "kty": "EC", "x": "AA", "crv": "P-256", "use": "sig"}
    # printf '{"crv":"P-256","kty":"EC","x":"AA","y":"AQ"}' | openssl dgst -sha256 -binary | basenc --base64url
    assert thumbprint(jwk) == "fpsA8udergWQQtZ5ijw9k_6RoFRa-SBsNr8jkweRkU4"


async def test_the_first_use_makes_the_first_key(database: Database) -> None:
    """An empty table gets one active key, and later loads find it."""
    made = await make_store(database).load()
    found = await make_store(database).load()
    assert made.active.kid == found.active.kid == thumbprint(public_jwk(made.active.key.public_key()))
    assert found.published[found.active.kid].key == made.active.key.public_key()
    assert found.active.key.private_numbers() == made.active.key.private_numbers()
    (row,) = await rows(database)
    assert (row.state, row.algorithm) == ("active", "ES256")


async def test_processes_that_start_at_once_agree_on_one_key(database: Database) -> None:
    """Of ten concurrent first loads one makes the key and all return it."""
    loaded = await asyncio.gather(*(make_store(database).load() for _ in range(10)))
    assert len({keys.active.kid for keys in loaded}) == 1
    assert len(await rows(database)) == 1


async def test_the_private_half_is_encrypted(database: Database) -> None:
    """The table shows neither private member nor PKCS #8, and the same key is never sealed alike."""
    keys = await make_store(database).load()
    (row,) = await rows(database)
    secret = keys.active.key.private_numbers().private_value.to_bytes(32, "big")
    assert secret not in row.private_key
    assert row.public_jwk.keys() == {"kty", "crv", "x", "y"}
    assert str(secret) not in repr(keys)


async def test_another_key_encryption_key_is_an_error_that_says_so(database: Database) -> None:
    """Signing with an unreadable key is refused, naming the setting that differs."""
    await make_store(database).load()
    with pytest.raises(KeyUndecryptable, match="key_encryption_key"):
        await make_store(database, b"another secret").load()


async def test_a_private_key_cannot_be_moved_to_another_row(database: Database) -> None:
    """The key id is sealed in: a row whose id was changed does not open."""
    await make_store(database).load()
    async with database.sessions.begin() as session:
        await session.execute(update(SigningKeyRow).values(kid="another"))
    with pytest.raises(KeyUndecryptable):
        await make_store(database).load()


async def test_keys_are_published_before_and_after_their_time(database: Database) -> None:
    """Next and retiring keys are published beside the active one, revoked ones are not."""
    for state in ("next", "retiring", "revoked"):
        kid = (await make_store(database).load()).active.kid
        async with database.sessions.begin() as session:
            await session.execute(update(SigningKeyRow).where(SigningKeyRow.kid == kid).values(state=state))
    published = (await make_store(database).load()).published
    states = {row.state: row.kid in published for row in await rows(database)}
    assert states == {"next": True, "active": True, "retiring": True, "revoked": False}


class Store:
    """Keys in memory that count how often they are asked for."""

    def __init__(self) -> None:
        self.keys = make_keys()
        self.asked = 0
        self.error: Exception | None = None

    async def load(self) -> KeySet:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.keys


def make_keys() -> KeySet:
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = public_jwk(key.public_key())
    kid = thumbprint(jwk)
    return KeySet(PrivateKey(kid, "ES256", key), {kid: PublicKey(kid, "ES256", jwk, key.public_key())})


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def ring(store: Store, clock: FrozenClock) -> KeyRing:
    return KeyRing(store.load, monotonic=lambda: clock.now().timestamp())


async def test_a_ring_loads_once(ring: KeyRing, store: Store) -> None:
    """Concurrent first uses are one load, and nothing is loaded before."""
    assert store.asked == 0
    await asyncio.gather(*(ring.keys() for _ in range(10)), *(ring.find(store.keys.active.kid) for _ in range(10)))
    assert store.asked == 1


async def test_an_unknown_key_is_asked_for_once_in_ten_seconds(ring: KeyRing, store: Store, clock: FrozenClock) -> None:
    """Whoever invents key ids causes one query in 10 s, however many callers there are."""
    await ring.keys()
    for expected in (1, 2, 3):
        assert await asyncio.gather(*(ring.find(f"invented {number}") for number in range(10))) == [None] * 10
        assert store.asked == expected
        clock.advance(timedelta(seconds=10))


async def test_a_new_key_is_found(ring: KeyRing, store: Store, clock: FrozenClock) -> None:
    """A token signed by another process with a key made since is verified without a restart."""
    old = await ring.keys()
    new = make_keys()
    store.keys = replace(new, published={**new.published, **old.published})
    clock.advance(timedelta(seconds=10))
    assert await ring.find(new.active.kid) is not None
    assert await ring.find(old.active.kid) is not None
    assert (await ring.keys()).active.kid == new.active.kid


async def test_a_store_that_is_away_costs_known_keys_nothing(ring: KeyRing, store: Store, clock: FrozenClock) -> None:
    """When a reload fails its caller is told so; known keys go on working and the store is not asked again at once."""
    known = (await ring.keys()).active.kid
    store.error = Unavailable()
    clock.advance(timedelta(seconds=10))
    with pytest.raises(Unavailable):
        await ring.find("unknown")
    assert await ring.find("unknown") is None
    assert await ring.find(known) is not None
    assert store.asked == 2


async def test_a_first_load_that_failed_is_tried_again(ring: KeyRing, store: Store) -> None:
    """A database that was away at first use costs no restart."""
    store.error = Unavailable()
    with pytest.raises(Unavailable):
        await ring.keys()
    store.error = None
    assert await ring.keys() is store.keys
