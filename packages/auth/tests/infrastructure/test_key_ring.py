"""The key ring of a process: when it reloads, and how it behaves while the store is unavailable."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import KeyUnusable
from tequipy_auth.infrastructure import key_ring
from tequipy_auth.infrastructure.key_ring import KeyRing
from tequipy_auth.infrastructure.keys import KeySet, PrivateKey, PublicKey, generate, public_jwk, thumbprint
from tequipy_platform import Unavailable
from tequipy_platform.testing import FrozenClock


class Store:
    """Keys in memory; counts loads, and fails or blocks as the test specifies."""

    def __init__(self) -> None:
        self.keys = make_keys()
        self.asked = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def load(self) -> KeySet:
        self.asked += 1
        await asyncio.sleep(0)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.keys

    def rotate(self) -> None:
        new = make_keys()
        self.keys = replace(new, published={**new.published, **self.keys.published})


def make_keys() -> KeySet:
    key = generate("ES256")
    jwk = public_jwk(key.public_key())
    kid = thumbprint(jwk)
    return KeySet(PrivateKey(kid, "ES256", key), {kid: PublicKey(kid, "ES256", jwk, key.public_key())})


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def ring(store: Store, clock: FrozenClock) -> AsyncIterator[KeyRing]:
    async with KeyRing(store.load, monotonic=lambda: clock.now().timestamp()) as ring:
        yield ring


async def settle() -> None:
    """Wait until background tasks have finished."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_ring_loads_once(ring: KeyRing, store: Store) -> None:
    """Concurrent first uses share one load, and nothing is loaded before."""
    assert store.asked == 0
    await asyncio.gather(*(ring.keys() for _ in range(10)), *(ring.find(store.keys.active.kid) for _ in range(10)))
    assert store.asked == 1


async def test_unknown_keys_cause_one_load_in_ten_seconds(ring: KeyRing, store: Store, clock: FrozenClock) -> None:
    """Invented key ids cause one load in 10 s, for any number of callers."""
    await ring.keys()
    for expected in (2, 3):
        for _ in range(3):
            assert await asyncio.gather(*(ring.find(f"invented {number}") for number in range(10))) == [None] * 10
        assert store.asked == expected
        clock.advance(timedelta(seconds=10))


async def test_a_new_key_is_found(ring: KeyRing, store: Store) -> None:
    """A token that another process signed with a new key is verified without a restart."""
    old = await ring.keys()
    store.rotate()
    assert await ring.find(store.keys.active.kid) is not None
    assert await ring.find(old.active.kid) is not None
    assert (await ring.keys()).active is store.keys.active


async def test_a_rotation_elsewhere_is_noticed(ring: KeyRing, store: Store, clock: FrozenClock) -> None:
    """Keys older than a minute are reloaded before they are used to sign."""
    old = await ring.keys()
    store.rotate()
    clock.advance(timedelta(seconds=29))
    assert await ring.keys() is old
    clock.advance(timedelta(seconds=31))
    assert await ring.keys() is store.keys


async def test_keys_are_renewed_before_they_are_old(ring: KeyRing, store: Store, clock: FrozenClock) -> None:
    """At half the maximum age a renewal starts in the background, without delaying callers."""
    old = await ring.keys()
    store.rotate()
    store.answers.clear()
    clock.advance(timedelta(seconds=30))
    assert await ring.keys() is old
    assert ring.holds(old.active.kid)
    store.answers.set()
    await settle()
    assert await ring.keys() is store.keys
    assert store.asked == 2


async def test_a_removed_key_is_not_held(ring: KeyRing, store: Store) -> None:
    """`holds` returns False for a key that is no longer published."""
    assert not ring.holds(store.keys.active.kid)
    old = (await ring.keys()).active.kid
    assert ring.holds(old)
    store.keys = make_keys()
    await ring.reload()
    assert not ring.holds(old)


async def test_known_keys_work_while_the_store_is_unavailable(
    ring: KeyRing, store: Store, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed reload raises in its caller; known keys remain usable and the store is not asked again at once."""
    known = (await ring.keys()).active.kid
    store.error = Unavailable()
    with pytest.raises(Unavailable):
        await ring.find("unknown")
    assert await ring.find("unknown") is None
    assert store.asked == 2
    clock.advance(timedelta(hours=1))
    for _ in range(3):
        assert await ring.find(known) is not None
        assert ring.holds(known)
        await settle()
    assert store.asked == 3, "tried again, and not at once a third time"
    failures = {(record.message, vars(record)["error"]) for record in caplog.records}
    assert failures == {("signing_keys_load_failed", "Unavailable")}


async def test_an_unusable_active_key_is_reported_until_it_is_usable(
    ring: KeyRing, store: Store, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While the active key cannot be decrypted, `check` raises and one line is logged; loaded keys remain in use."""
    held = await ring.keys()
    await ring.check()
    store.error = KeyUnusable("signing key x was encrypted under another secret")
    for _ in range(3):
        clock.advance(timedelta(seconds=30))
        await ring.keys()
        await settle()
        with pytest.raises(KeyUnusable, match="another secret"):
            await ring.check()
        assert await ring.keys() is held
    (record,) = caplog.records
    assert record.message == "signing_keys_refused"
    assert vars(record)["error"].startswith("key_encryption_key: signing key x")
    store.error = Unavailable()
    clock.advance(timedelta(seconds=30))
    await ring.keys()
    await settle()
    with pytest.raises(KeyUnusable):
        await ring.check()  # an unavailable store gives no new information
    store.error = None
    clock.advance(timedelta(seconds=30))
    await ring.keys()
    await settle()
    await ring.check()


async def test_check_fails_until_the_first_load_succeeds(ring: KeyRing, store: Store) -> None:
    """Before the first successful load, `check` raises the error of the load."""
    store.error = Unavailable()
    with pytest.raises(Unavailable):
        await ring.check()
    store.error = None
    await ring.check()


async def test_callers_share_the_wait_for_a_blocked_store(
    ring: KeyRing, store: Store, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten callers wait together once for the renewal, and sign with the loaded keys."""
    monkeypatch.setattr(key_ring, "RENEWAL_TIMEOUT", 0.2)
    old = await ring.keys()
    store.answers.clear()
    clock.advance(timedelta(hours=1))
    begun = time.perf_counter()
    assert await asyncio.gather(*(ring.keys() for _ in range(10))) == [old] * 10
    first = time.perf_counter() - begun
    assert store.asked == 2
    assert first < 10 * 0.2 / 2, "a convoy takes 10 times as long as one"
    clock.advance(timedelta(seconds=1))
    begun = time.perf_counter()
    assert await asyncio.gather(*(ring.keys() for _ in range(10))) == [old] * 10
    assert time.perf_counter() - begun < first / 2, "later callers do not wait"


async def test_a_blocked_first_load_raises_in_time(
    ring: KeyRing, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys callers get `Unavailable`, and the load in progress serves later callers."""
    monkeypatch.setattr(key_ring, "LOAD_TIMEOUT", 0.01)
    store.answers.clear()
    refused = await asyncio.gather(*(ring.keys() for _ in range(10)), return_exceptions=True)
    assert {type(error) for error in refused} == {Unavailable}
    store.answers.set()
    await settle()
    assert await ring.keys() is store.keys
    assert store.asked == 1


async def test_a_cancelled_caller_does_not_cancel_the_load(ring: KeyRing, store: Store) -> None:
    """Cancelling the caller that started the load does not affect the others."""
    store.answers.clear()
    first, second = asyncio.create_task(ring.keys()), asyncio.create_task(ring.keys())
    await settle()
    first.cancel()
    await settle()
    store.answers.set()
    assert await second is store.keys
    assert store.asked == 1


async def test_a_failed_first_load_is_repeated(ring: KeyRing, store: Store) -> None:
    """A database that was unavailable at first use requires no restart."""
    store.error = Unavailable()
    with pytest.raises(Unavailable):
        await ring.keys()
    store.error = None
    assert await ring.keys() is store.keys


async def test_closing_cancels_a_load_in_progress(store: Store) -> None:
    """No task is left when the process stops while the store is blocked."""
    ring = KeyRing(store.load)
    store.answers.clear()
    async with ring:
        waiting = asyncio.create_task(ring.keys())
        await settle()
    with pytest.raises(asyncio.CancelledError):
        await waiting
