"""Response times do not reveal whether an account exists: typical times over interleaved samples."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from statistics import median

import pytest
from sqlalchemy import delete

from tequipy_auth import CACHE_POLICIES, Auth, Client, InvalidCredentials
from tequipy_auth.infrastructure.models import LoginAttemptRow
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform.database import Database

PASSWORD = "correct horse battery staple"
CLIENT = Client("192.0.2.1", "test")

# Cost, number of samples, and the allowed ratio of the largest to the smallest time. A wrong implementation computes
# no hash, two hashes or a hash of another cost. The short form runs beside other tests. A hash of cost 8 takes about 20
# ms.
SIZES = [
    pytest.param(8, 15, 0.8, id="short"),
    pytest.param(12, 40, 0.25, id="long", marks=[pytest.mark.prove, pytest.mark.timeout(600)]),
]
LONG_SAMPLES = 40
Act = Callable[[], Awaitable[object]]


def make_auth(database: Database, cost: int, mode: str) -> Auth:
    return build_auth(
        AuthSettings.model_validate({"bcrypt_cost": cost, "registration_mode": mode}),
        environment="test",
        public_url="https://app.example.com",
        database=database,
        cache=MemoryCacheManager(CACHE_POLICIES),
    )


async def typical_times(
    acts: Mapping[str, Act], samples: int, database: Database, tolerance: float
) -> dict[str, float]:
    """Return the typical seconds of each function, measured in turns after one unmeasured round.

    They are the median of the long form. The short form runs beside other tests, which can only add time, so there they
    are those of the fastest run, of up to five times as many runs while they are not alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    await measure_round(acts, database)
    typical, series = (min, 5) if samples < LONG_SAMPLES else (median, 1)
    found = dict[str, float]()
    for _ in range(series):
        for _ in range(samples):
            for name, took in (await measure_round(acts, database)).items():
                seconds[name].append(took)
        found = {name: typical(times) for name, times in seconds.items()}
        if spread_of(found) < tolerance:
            break
    return found


async def measure_round(acts: Mapping[str, Act], database: Database) -> dict[str, float]:
    """Return the seconds that each function takes, with no account locked."""
    seconds = dict[str, float]()
    for name, act in acts.items():
        async with database.sessions.begin() as session:
            await session.execute(delete(LoginAttemptRow))
        began = time.perf_counter()
        with suppress(InvalidCredentials):
            await act()
        seconds[name] = time.perf_counter() - began
    return seconds


def spread_of(found: Mapping[str, float]) -> float:
    return max(found.values()) / min(found.values()) - 1


def assert_alike(what: str, found: Mapping[str, float], tolerance: float) -> None:
    listed = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in found.items())
    print(f"\n{what}: {listed}; spread {spread_of(found):.1%}")
    assert spread_of(found) < tolerance


@pytest.mark.parametrize(("cost", "samples", "tolerance"), SIZES)
async def test_a_login_takes_as_long_for_every_address(
    database: Database, cost: int, samples: int, tolerance: float
) -> None:
    """A wrong password takes the same time for a known, an unknown, a pending and an unverified account."""
    async with make_auth(database, cost, "private") as auth, make_auth(database, cost, "open") as open_auth:
        await auth.registration.create_admin(email="known@example.com", password=PASSWORD)
        await auth.registration.register(email="pending@example.com", password=PASSWORD, client=CLIENT)
        await open_auth.registration.register(email="unverified@example.com", password=PASSWORD, client=CLIENT)

        def guess(name: str) -> Act:
            return lambda: auth.login.with_password(email=f"{name}@example.com", password="wrong", client=CLIENT)

        found = await typical_times(
            {name: guess(name) for name in ("known", "unknown", "pending", "unverified")}, samples, database, tolerance
        )
    assert_alike(f"login with a wrong password, cost {cost}", found, tolerance)


@pytest.mark.parametrize(
    ("before", "now", "samples", "tolerance"),
    [
        pytest.param(7, 8, 15, 0.8, id="raised-short"),
        pytest.param(9, 8, 15, 0.8, id="lowered-short"),
        pytest.param(11, 12, 40, 0.25, id="raised-long", marks=[pytest.mark.prove, pytest.mark.timeout(600)]),
        pytest.param(12, 11, 40, 0.25, id="lowered-long", marks=[pytest.mark.prove, pytest.mark.timeout(600)]),
    ],
)
async def test_a_login_takes_as_long_after_the_cost_was_changed(
    database: Database, before: int, now: int, samples: int, tolerance: float
) -> None:
    """A wrong password takes the same time for accounts with an old and a new cost and for an unknown address."""
    async with make_auth(database, before, "private") as auth:
        await auth.registration.create_admin(email="older@example.com", password=PASSWORD)
    async with make_auth(database, now, "private") as auth:
        await auth.registration.create_admin(email="newer@example.com", password=PASSWORD)

        def guess(name: str) -> Act:
            return lambda: auth.login.with_password(email=f"{name}@example.com", password="wrong", client=CLIENT)

        found = await typical_times(
            {name: guess(name) for name in ("older", "newer", "unknown")}, samples, database, tolerance
        )
    assert_alike(f"login with a wrong password, cost {before} before and {now} now", found, tolerance)


@pytest.mark.parametrize(("cost", "samples", "tolerance"), SIZES)
async def test_a_registration_takes_as_long_for_every_address(
    database: Database, cost: int, samples: int, tolerance: float
) -> None:
    """A registration takes the same time for a known, a pending and an unknown address."""
    async with make_auth(database, cost, "private") as auth:
        await auth.registration.create_admin(email="known@example.com", password=PASSWORD)
        await auth.registration.register(email="pending@example.com", password=PASSWORD, client=CLIENT)

        def register(name: str) -> Act:
            email = f"{name}@example.com"
            return lambda: auth.registration.register(email=email, password=PASSWORD, client=CLIENT)

        found = await typical_times(
            {name: register(name) for name in ("known", "pending", "unknown")}, samples, database, tolerance
        )
    assert_alike(f"registration, cost {cost}", found, tolerance)


@pytest.mark.parametrize(("samples", "tolerance"), [(30, 0.8), pytest.param(600, 0.25, marks=pytest.mark.prove)])
async def test_a_reset_request_takes_as_long_for_every_address(
    database: Database, samples: int, tolerance: float
) -> None:
    """A reset request, which hashes nothing, takes the same time for a known, a pending and an unknown address."""
    async with make_auth(database, 4, "private") as auth:
        await auth.registration.create_admin(email="known@example.com", password=PASSWORD)
        await auth.registration.register(email="pending@example.com", password=PASSWORD, client=CLIENT)

        def forget(name: str) -> Act:
            return lambda: auth.passwords.forgot(email=f"{name}@example.com", client=CLIENT)

        found = await typical_times(
            {name: forget(name) for name in ("known", "pending", "unknown")}, samples, database, tolerance
        )
    assert_alike("forgotten password", found, tolerance)
