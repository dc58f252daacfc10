"""Password and secret hashers: the contract of real ones and fakes, and properties of the real ones."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import bcrypt
import pytest

from tequipy_auth import HashingClient, PasswordHash, PasswordHasher, SecretHasher
from tequipy_auth.infrastructure import passwords
from tequipy_auth.infrastructure.hashing import HashingPool
from tequipy_auth.infrastructure.passwords import BcryptPasswordHasher
from tequipy_auth.infrastructure.refresh_secrets import BcryptSecretHasher, SettingsSuccessorKeys
from tequipy_auth.testing import FakePasswordHasher, FakeSecretHasher, FakeSuccessorKeys

PEPPERS = {1: b"old pepper", 2: b"new pepper"}
COST = 4
CLIENT = HashingClient("192.0.2.1")


@pytest.fixture
async def pool() -> AsyncIterator[HashingPool]:
    async with HashingPool(queue=10) as pool:
        yield pool


@pytest.fixture(params=["real", "fake"])
def hasher(request: pytest.FixtureRequest, pool: HashingPool) -> PasswordHasher:
    return BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST) if request.param == "real" else FakePasswordHasher()


@pytest.fixture(params=["real", "fake"])
def secret_hasher(request: pytest.FixtureRequest, pool: HashingPool) -> SecretHasher:
    return BcryptSecretHasher(pool) if request.param == "real" else FakeSecretHasher()


@pytest.mark.parametrize(
    "password", ["correct horse battery staple", "p" * 128, "пароль " * 20, "nul\0inside", "\ud800"]
)
async def test_a_password_is_verified(hasher: PasswordHasher, password: str) -> None:
    """A password matches its hash, also beyond 72 bytes; a missing account matches no password."""
    stored = await hasher.hash(password, CLIENT)
    assert await hasher.verify(password, stored, CLIENT)
    assert not await hasher.verify(password + "x", stored, CLIENT)
    assert not await hasher.verify(password, None, CLIENT)
    assert stored.digest not in repr(stored)


async def test_a_secret_is_verified(secret_hasher: SecretHasher) -> None:
    """A secret matches its hash and no other; a malformed hash returns False."""
    stored = await secret_hasher.hash("A" * 43)
    assert await secret_hasher.verify("A" * 43, stored)
    assert not await secret_hasher.verify("A" * 42 + "E", stored)
    assert not await secret_hasher.verify("A" * 43, "no hash")
    assert "A" * 43 not in stored


async def test_a_secret_is_exchanged(secret_hasher: SecretHasher) -> None:
    """The hash of the successor is returned for the right secret only; a malformed hash returns None."""
    stored = await secret_hasher.hash("A" * 43)
    exchanged = await secret_hasher.exchange("A" * 43, stored, successor="B" * 43)
    assert exchanged is not None
    assert await secret_hasher.verify("B" * 43, exchanged)
    assert not await secret_hasher.verify("A" * 43, exchanged)
    assert await secret_hasher.exchange("A" * 42 + "E", stored, successor="B" * 43) is None
    assert await secret_hasher.exchange("A" * 43, "no hash", successor="B" * 43) is None


async def test_the_scheme_is_bcrypt_over_a_peppered_hmac(pool: HashingPool) -> None:
    """The digest can be computed by hand, and the hash has the configured cost and newest pepper version."""
    stored = await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST).hash("password", CLIENT)
    assert (stored.scheme, stored.cost, stored.pepper_version) == ("bcrypt-hmac-sha256", COST, 2)
    material = b64encode(hmac.digest(b"new pepper", b"password", hashlib.sha256))
    assert bcrypt.checkpw(material, stored.digest.encode())


async def test_an_older_pepper_and_cost_still_verify(pool: HashingPool) -> None:
    """A hash with an earlier pepper and cost still verifies."""
    stored = await BcryptPasswordHasher(pool, peppers={1: b"old pepper"}, cost=5).hash("password", CLIENT)
    assert stored.pepper_version == 1
    assert await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST).verify("password", stored, CLIENT)


@pytest.mark.parametrize(
    "damage",
    [
        {"scheme": "md5"},
        {"pepper_version": 3},
        {"digest": "no digest"},
        {"digest": "$2b$04$" + "a" * 53},
        {"digest": "$2b$16$" + "a" * 53},
    ],
)
async def test_a_hash_that_cannot_be_verified_is_false(
    pool: HashingPool, damage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Malformed hashes, unknown peppers and costs above 15 return False after a normal check."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST)
    checked = count_checks(monkeypatch)
    assert not await hasher.verify("password", replace(await hasher.hash("password", CLIENT), **damage), CLIENT)
    assert len(checked) == 1


async def test_an_unknown_account_costs_one_check_of_the_current_cost(
    pool: HashingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a login does not reveal whether an account exists."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=5)
    checked = count_checks(monkeypatch)
    assert not await hasher.verify("password", None, CLIENT)
    assert [digest[:7] for digest in checked] == [b"$2b$05$"]


@pytest.mark.parametrize("cost", [4, 5, 7])
@pytest.mark.parametrize("highest_cost", [0, 4, 6, 16])
@pytest.mark.parametrize("stored_cost", [None, 4, 5, 6])
@pytest.mark.parametrize("scheme", ["bcrypt-hmac-sha256", "bcrypt", "md5", "damaged"])
async def test_every_failed_check_takes_the_same_rounds(
    pool: HashingPool,
    scheme: str,
    stored_cost: int | None,
    highest_cost: int,
    cost: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failed check takes the rounds of the highest cost, for unknown accounts, other costs and schemes."""
    monkeypatch.setattr(passwords, "MAX_STORED_COST", 8)
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=cost)
    stored = None
    if stored_cost is not None:
        digest = bcrypt.hashpw(b"the password", bcrypt.gensalt(stored_cost)).decode()
        digest = digest[:7] + "a" * 53 if scheme == "damaged" else digest
        stored = PasswordHash(
            "bcrypt" if scheme == "damaged" else scheme, stored_cost, int(scheme == "bcrypt-hmac-sha256"), digest
        )
        highest_cost = max(highest_cost, stored_cost)  # the value that the repository returns
    rounds = count_rounds(monkeypatch)
    assert not await hasher.verify("another password", stored, CLIENT, highest_cost=highest_cost)
    assert sum(rounds) == 2 ** max(cost, min(highest_cost, 8))


async def test_a_right_password_is_not_padded(pool: HashingPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of the correct password takes only the rounds of the stored cost."""
    stored = await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=4).hash("password", CLIENT)
    rounds = count_rounds(monkeypatch)
    newer = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=6)
    assert await newer.verify("password", stored, CLIENT, highest_cost=7)
    assert rounds == [2**4]


async def test_secret_hashes_have_the_configured_cost(pool: HashingPool) -> None:
    """The default is bcrypt's lowest cost; hashes of other costs still verify."""
    digest = await BcryptSecretHasher(pool).hash("A" * 43)
    assert digest.startswith("$2b$04$")
    costlier = BcryptSecretHasher(pool, cost=5)
    assert (await costlier.hash("A" * 43)).startswith("$2b$05$")
    assert await costlier.verify("A" * 43, digest)


async def test_secret_hashes_of_a_high_cost_are_not_checked(pool: HashingPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was changed to cost 31 cannot block a thread for a day."""
    checked = count_checks(monkeypatch)
    assert not await BcryptSecretHasher(pool).verify("A" * 43, "$2b$31$" + "a" * 53)
    assert not checked


async def test_an_unusable_hash_is_logged(pool: HashingPool, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the missing pepper version and contains neither hash nor password."""
    stored = PasswordHash("bcrypt-hmac-sha256", COST, 9, "the digest")
    assert not await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST).verify("the password", stored, CLIENT)
    (record,) = caplog.records
    assert (record.message, vars(record)["hmac_key_version"]) == ("password_hash_refused", 9)
    assert "the digest" not in str(vars(record))
    assert "the password" not in str(vars(record))


@pytest.mark.parametrize("keys", [SettingsSuccessorKeys({1: b"first"}), FakeSuccessorKeys()])
def test_successor_keys_are_found_by_version(keys: SettingsSuccessorKeys | FakeSuccessorKeys) -> None:
    """The current version has a key; an unknown version returns None."""
    assert keys.key(keys.current_version) == b"first"
    assert keys.key(99) is None


def test_the_highest_successor_key_is_current() -> None:
    """The key with the highest version is the current one, in any order of the settings."""
    assert SettingsSuccessorKeys({2: b"b", 10: b"c", 1: b"a"}).current_version == 10


async def test_new_hashes_and_successors_use_the_chosen_version(pool: HashingPool) -> None:
    """With a chosen version, new hashes and successors use it, and those of every other version are still accepted."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, pepper_version=1, cost=COST)
    newest = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST)
    for maker, version in ((hasher, 1), (newest, 2)):
        stored = await maker.hash("password", CLIENT)
        assert stored.pepper_version == version
        assert [await each.verify("password", stored, CLIENT) for each in (hasher, newest)] == [True, True]
        assert (hasher.is_outdated(stored), newest.is_outdated(stored)) == (version == 2, version == 1)
    keys = SettingsSuccessorKeys({1: b"a", 2: b"b"}, current=1)
    assert (keys.current_version, keys.key(2)) == (1, b"b")


def count_checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list to which every digest that bcrypt checks is added."""
    checked: list[bytes] = []
    check = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return checked


def count_rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the rounds of every bcrypt computation are added."""
    rounds: list[int] = []
    check, hashpw = bcrypt.checkpw, bcrypt.hashpw

    def checked(password: bytes, hashed: bytes) -> bool:
        matches = check(password, hashed)  # raises an error, without any rounds, for a malformed digest
        rounds.append(2 ** int(hashed[4:6]))
        return matches

    def made(password: bytes, salt: bytes) -> bytes:
        rounds.append(2 ** int(salt[4:6]))
        return hashpw(password, salt)

    monkeypatch.setattr(bcrypt, "checkpw", checked)
    monkeypatch.setattr(bcrypt, "hashpw", made)
    return rounds


async def test_foreign_hashes_verify_and_are_outdated(pool: HashingPool) -> None:
    """With the setting, imported bcrypt hashes work until they are renewed at the next login."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST, foreign_schemes=["bcrypt"])
    strict = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST)
    long = "p" * 100
    digest = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(COST)).decode()
    for prefix in ("$2a$", "$2b$", "$2y$"):
        stored = PasswordHash("bcrypt", COST, 0, prefix + digest[4:])
        assert await hasher.verify(long, stored, CLIENT)
        assert not await hasher.verify("q" * 100, stored, CLIENT)
        assert hasher.is_outdated(stored)
        assert not await strict.verify(long, stored, CLIENT)


@pytest.mark.parametrize("change", [{"scheme": "bcrypt"}, {"cost": COST + 1}, {"pepper_version": 1}, {}])
async def test_a_hash_is_outdated_when_a_new_one_would_differ(pool: HashingPool, change: dict[str, Any]) -> None:
    """Scheme, cost and pepper decide, the digest does not."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST)
    stored = await hasher.hash("password", CLIENT)
    assert hasher.is_outdated(replace(stored, **change)) == bool(change)
    assert not hasher.is_outdated(await hasher.hash("another", CLIENT))
