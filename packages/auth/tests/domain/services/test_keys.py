"""Creation, rotation and revocation of signing keys, with the in-memory fakes."""

from datetime import timedelta

import pytest

from tequipy_auth import AuthPolicy, KeyNotPublishedLongEnough, KeyService, KeyState, KeyUnusable, UnknownKey
from tequipy_auth.testing import FakeKeyMaker, MemoryAuthUnitOfWork, MemoryRevocations, RecordingOperations
from tequipy_platform.testing import FrozenClock

POLICY = AuthPolicy()
MOMENT = timedelta(seconds=1)


@pytest.fixture
def revocations(clock: FrozenClock) -> MemoryRevocations:
    return MemoryRevocations(clock, ttl=POLICY.revocation_ttl)


@pytest.fixture
def keys(work: MemoryAuthUnitOfWork, clock: FrozenClock, revocations: MemoryRevocations) -> KeyService:
    return KeyService(
        lambda: work,
        maker=FakeKeyMaker(),
        revocations=revocations,
        policy=POLICY,
        clock=clock,
        operations=RecordingOperations(),
    )


async def states(keys: KeyService) -> dict[str, str]:
    return {key.kid: key.state.value for key in await keys.keys()}


async def published(keys: KeyService) -> list[str]:
    return [key.kid for key in await keys.published()]


async def test_the_first_use_creates_an_active_and_a_next_key(keys: KeyService) -> None:
    """The first use creates and publishes an active and a next key; a second use creates none."""
    for _ in range(2):
        assert await published(keys) == ["key-1", "key-2"]
    assert await states(keys) == {"key-1": "active", "key-2": "next"}


async def test_a_key_is_published_before_it_signs(keys: KeyService, clock: FrozenClock) -> None:
    """A next key becomes active only after every cached key set has expired."""
    await keys.published()
    clock.advance(POLICY.jwks_max_age - MOMENT)
    with pytest.raises(KeyNotPublishedLongEnough, match="rotate after") as refusal:
        await keys.rotate()
    assert refusal.value.usable_at == clock.now() + MOMENT
    assert await states(keys) == {"key-1": "active", "key-2": "next"}
    clock.advance(MOMENT)
    assert await keys.rotate() == "key-2"
    assert await states(keys) == {"key-1": "retiring", "key-2": "active", "key-3": "next"}


async def test_a_retiring_key_is_published_until_its_last_token_has_expired(
    keys: KeyService, clock: FrozenClock
) -> None:
    """It is published for 15 min and 30 s for its tokens, and a minute longer for processes that still sign with it."""
    await keys.published()
    clock.advance(POLICY.jwks_max_age)
    await keys.rotate()
    clock.advance(timedelta(seconds=900 + 30 + 60) - MOMENT)
    assert await published(keys) == ["key-1", "key-2", "key-3"]
    clock.advance(MOMENT)
    assert await published(keys) == ["key-2", "key-3"]
    await keys.rotate()
    assert (await states(keys))["key-1"] == "revoked"


async def test_a_key_is_known_to_every_process_before_it_signs() -> None:
    """A process reloads its keys twice within the max-age of the key set, however short that is."""
    for max_age in (timedelta(minutes=5), timedelta(seconds=2)):
        policy = AuthPolicy(jwks_max_age=max_age)
        assert policy.key_ring_max_age <= max_age / 2
    assert POLICY.key_ring_max_age == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("kid", "after"),
    [
        ("key-1", {"key-1": "revoked", "key-2": "active", "key-3": "next"}),
        ("key-2", {"key-1": "active", "key-2": "revoked", "key-3": "next"}),
    ],
)
async def test_a_revoked_key_is_refused_at_once_and_replaced(
    keys: KeyService,
    work: MemoryAuthUnitOfWork,
    revocations: MemoryRevocations,
    kid: str,
    after: dict[str, str],
) -> None:
    """The next key replaces the revoked active key; the revocation is published directly and by a task."""
    await keys.published()
    await keys.revoke(kid)
    assert await states(keys) == after
    assert kid not in await published(keys)
    assert await revocations.contains_any([f"kid:{kid}"])
    (task,) = work.outbox.tasks
    assert (task.task, task.payload) == ("auth.publish_revocations", {"members": [f"kid:{kid}"]})


async def test_only_a_known_key_is_revoked_and_only_once(keys: KeyService, work: MemoryAuthUnitOfWork) -> None:
    """Revoking an unknown or revoked key raises an error and changes nothing."""
    await keys.published()
    await keys.revoke("key-1")
    for kid in ("key-1", "key-9"):
        with pytest.raises(UnknownKey, match=f"no signing key {kid}"):
            await keys.revoke(kid)
    assert len(work.outbox.tasks) == 1


async def test_a_table_with_only_an_active_key_rotates(
    keys: KeyService, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """A table with only an active key gets a next key at the first rotation and rotates at the second."""
    await work.signing_keys.add(FakeKeyMaker().make(KeyState.ACTIVE, clock.now()))
    keys._maker.make(KeyState.NEXT, clock.now())  # the key id exists already
    with pytest.raises(KeyNotPublishedLongEnough):
        await keys.rotate()
    assert await states(keys) == {"key-1": "active", "key-2": "next"}
    clock.advance(POLICY.jwks_max_age)
    assert await keys.rotate() == "key-2"


def versions(work: MemoryAuthUnitOfWork) -> dict[str, int | None]:
    return {kid: key.encryption_version for kid, key in work.signing_keys.rows.items()}


async def test_keys_are_encrypted_under_the_newest_key(keys: KeyService, work: MemoryAuthUnitOfWork) -> None:
    """Every key except revoked ones is re-encrypted with the newest version once, and each change is audited."""
    maker = keys._maker
    assert isinstance(maker, FakeKeyMaker)
    await keys.published()
    await keys.revoke("key-1")
    assert await keys.reencrypt() == []
    maker.versions.add(2)
    assert await keys.reencrypt() == ["key-2", "key-3"]
    assert versions(work) == {"key-1": 1, "key-2": 2, "key-3": 2}
    assert await keys.reencrypt() == []
    recorded = [event.metadata["kid"] for event in work.audit.events if event.reason == "key_reencrypted"]
    assert recorded == ["key-2", "key-3"]


async def test_a_key_that_cannot_be_decrypted_changes_nothing(
    keys: KeyService, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """Keys whose key-encryption key is missing are neither re-encrypted nor activated, but can be revoked."""
    maker = keys._maker
    assert isinstance(maker, FakeKeyMaker)
    await keys.published()
    maker.versions = {2}
    clock.advance(POLICY.jwks_max_age)
    for refused in (keys.reencrypt(), keys.rotate(), keys.revoke("key-1")):
        with pytest.raises(KeyUnusable):
            await refused
    assert await states(keys) == {"key-1": "active", "key-2": "next"}
    assert versions(work) == {"key-1": 1, "key-2": 1}
    await keys.revoke("key-2")
    await keys.revoke("key-1")
    assert await states(keys) == {"key-1": "revoked", "key-2": "revoked", "key-3": "active", "key-4": "next"}
