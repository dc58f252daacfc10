"""Password and secret hashers: what real ones and fakes promise, and what only real ones can."""

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
    """The password matches its hash; one that differs after 72 bytes does not; nobody's hash matches nothing."""
    stored = await hasher.hash(password, CLIENT)
    assert await hasher.verify(password, stored, CLIENT)
    assert not await hasher.verify(password + "x", stored, CLIENT)
    assert not await hasher.verify(password, None, CLIENT)
    assert stored.digest not in repr(stored)


async def test_a_secret_is_verified(secret_hasher: SecretHasher) -> None:
    """The secret of a refresh token matches its hash and no other; what is no hash is False."""
    stored = await secret_hasher.hash("A" * 43)
    assert await secret_hasher.verify("A" * 43, stored)
    assert not await secret_hasher.verify("A" * 42 + "E", stored)
    assert not await secret_hasher.verify("A" * 43, "no hash")
    assert "A" * 43 not in stored


async def test_the_scheme_is_bcrypt_over_a_peppered_hmac(pool: HashingPool) -> None:
    """The stored digest can be made by hand, and says its cost and the newest pepper's version."""
    stored = await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST).hash("password", CLIENT)
    assert (stored.scheme, stored.cost, stored.pepper_version) == ("bcrypt-hmac-sha256", COST, 2)
    material = b64encode(hmac.digest(b"new pepper", b"password", hashlib.sha256))
    assert bcrypt.checkpw(material, stored.digest.encode())


async def test_an_older_pepper_and_cost_still_verify(pool: HashingPool) -> None:
    """A hash of the time before the pepper and the cost were raised goes on working."""
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
    """Malformed hashes, unknown peppers and costs above 15 are False, after one check like any other."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST)
    checked = count_checks(monkeypatch)
    assert not await hasher.verify("password", replace(await hasher.hash("password", CLIENT), **damage), CLIENT)
    assert len(checked) == 1


async def test_an_unknown_account_costs_one_check_of_the_present_cost(
    pool: HashingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first login on: nobody learns from the time whether an account exists."""
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
    """As many as the highest stored cost or today's asks for: unknown accounts, other costs, other schemes."""
    monkeypatch.setattr(passwords, "MAX_STORED_COST", 8)
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=cost)
    stored = None
    if stored_cost is not None:
        digest = bcrypt.hashpw(b"the password", bcrypt.gensalt(stored_cost)).decode()
        digest = digest[:7] + "a" * 53 if scheme == "damaged" else digest
        stored = PasswordHash(
            "bcrypt" if scheme == "damaged" else scheme, stored_cost, int(scheme == "bcrypt-hmac-sha256"), digest
        )
        highest_cost = max(highest_cost, stored_cost)  # as the repository says
    rounds = count_rounds(monkeypatch)
    assert not await hasher.verify("another password", stored, CLIENT, highest_cost=highest_cost)
    assert sum(rounds) == 2 ** max(cost, min(highest_cost, 8))


async def test_a_right_password_is_not_padded(pool: HashingPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows the password waits for the stored cost alone."""
    stored = await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=4).hash("password", CLIENT)
    rounds = count_rounds(monkeypatch)
    newer = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=6)
    assert await newer.verify("password", stored, CLIENT, highest_cost=7)
    assert rounds == [2**4]


async def test_a_secrets_hash_has_the_cost_that_was_set(pool: HashingPool) -> None:
    """bcrypt's lowest unless another is set; one of before still verifies."""
    digest = await BcryptSecretHasher(pool).hash("A" * 43)
    assert digest.startswith("$2b$04$")
    costlier = BcryptSecretHasher(pool, cost=5)
    assert (await costlier.hash("A" * 43)).startswith("$2b$05$")
    assert await costlier.verify("A" * 43, digest)


async def test_a_secrets_hash_of_a_high_cost_is_not_checked(pool: HashingPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that somebody changed to cost 31 cannot take a thread for a day."""
    checked = count_checks(monkeypatch)
    assert not await BcryptSecretHasher(pool).verify("A" * 43, "$2b$31$" + "a" * 53)
    assert not checked


async def test_an_unusable_hash_is_told_to_the_operator(pool: HashingPool, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which pepper is missing, and neither hash nor password."""
    stored = PasswordHash("bcrypt-hmac-sha256", COST, 9, "the digest")
    assert not await BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST).verify("the password", stored, CLIENT)
    (record,) = caplog.records
    assert (record.message, vars(record)["hmac_key_version"]) == ("password_hash_refused", 9)
    assert "the digest" not in str(vars(record))
    assert "the password" not in str(vars(record))


@pytest.mark.parametrize("keys", [SettingsSuccessorKeys({1: b"first"}), FakeSuccessorKeys()])
def test_successor_keys_are_found_by_version(keys: SettingsSuccessorKeys | FakeSuccessorKeys) -> None:
    """The current version is a key that is held; an unknown one is None."""
    assert keys.key(keys.current_version) == b"first"
    assert keys.key(99) is None


def test_the_highest_successor_key_is_current() -> None:
    """A rotated key is the one with the highest version, in whatever order they are named."""
    assert SettingsSuccessorKeys({2: b"b", 10: b"c", 1: b"a"}).current_version == 10


def count_checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list that every digest handed to bcrypt is added to."""
    checked: list[bytes] = []
    check = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return checked


def count_rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list that the rounds of every digest that bcrypt computes are added to."""
    rounds: list[int] = []
    check, hashpw = bcrypt.checkpw, bcrypt.hashpw

    def checked(password: bytes, hashed: bytes) -> bool:
        matches = check(password, hashed)  # raises, and takes no time, where the digest is none
        rounds.append(2 ** int(hashed[4:6]))
        return matches

    def made(password: bytes, salt: bytes) -> bytes:
        rounds.append(2 ** int(salt[4:6]))
        return hashpw(password, salt)

    monkeypatch.setattr(bcrypt, "checkpw", checked)
    monkeypatch.setattr(bcrypt, "hashpw", made)
    return rounds


async def test_what_other_systems_store_verifies_and_is_outdated(pool: HashingPool) -> None:
    """Where it is set, accounts that were taken over keep their plain bcrypt hashes until their next login."""
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
    """Scheme, cost and pepper decide, in whichever direction; the digest does not."""
    hasher = BcryptPasswordHasher(pool, peppers=PEPPERS, cost=COST)
    stored = await hasher.hash("password", CLIENT)
    assert hasher.is_outdated(replace(stored, **change)) == bool(change)
    assert not hasher.is_outdated(await hasher.hash("another", CLIENT))
