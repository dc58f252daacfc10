"""The repository of signing keys: one contract suite for memory and PostgreSQL."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from tequipy_auth import KeyState

from .entities import HOUR, NOW, Work, make_key


async def test_signing_keys_are_returned_oldest_first(work: Work) -> None:
    """Every key is returned unchanged, oldest first, in its current state."""
    young, old = make_key("young", KeyState.NEXT), make_key("old", KeyState.ACTIVE, age=HOUR)
    async with work() as unit:
        await unit.signing_keys.add(young)
        await unit.signing_keys.add(old)
    async with work() as unit:
        await unit.signing_keys.lock()
        assert list(await unit.signing_keys.all()) == [old, young]
        await unit.signing_keys.move("old", KeyState.RETIRING, at=NOW)
        await unit.signing_keys.move("young", KeyState.ACTIVE, at=NOW)
    async with work() as unit:
        states = [(key.kid, key.state, key.state_changed_at) for key in await unit.signing_keys.all()]
    assert states == [("old", KeyState.RETIRING, NOW), ("young", KeyState.ACTIVE, NOW)]


async def test_replacing_a_key_changes_its_encryption_only(work: Work) -> None:
    """Only the private key and its version are replaced."""
    first, second = make_key("first", KeyState.ACTIVE, age=HOUR), make_key("second", KeyState.NEXT)
    changed = replace(first, private_key=b"anew", encryption_version=None)
    async with work() as unit:
        await unit.signing_keys.add(first)
        await unit.signing_keys.add(second)
        await unit.signing_keys.replace(replace(changed, state=KeyState.RETIRING))
    async with work() as unit:
        assert list(await unit.signing_keys.all()) == [changed, second]


async def test_revoking_a_key_deletes_its_private_key(work: Work) -> None:
    """A revoked key cannot sign in any later state; other changes of state delete nothing."""
    async with work() as unit:
        await unit.signing_keys.add(make_key("key", KeyState.ACTIVE))
        await unit.signing_keys.move("key", KeyState.RETIRING, at=NOW)
        assert [key.private_key for key in await unit.signing_keys.all()] == [b"encrypted"]
        await unit.signing_keys.move("key", KeyState.REVOKED, at=NOW)
    async with work() as unit:
        assert [key.private_key for key in await unit.signing_keys.all()] == [b""]


async def test_one_key_is_active(work: Work) -> None:
    """The store refuses a second active key."""
    async with work() as unit:
        await unit.signing_keys.add(make_key("first", KeyState.ACTIVE))
    with pytest.raises((ValueError, IntegrityError)):
        async with work() as unit:
            await unit.signing_keys.add(make_key("second", KeyState.ACTIVE))


async def test_the_lock_of_signing_keys_is_exclusive(work: Work) -> None:
    """The holder of the lock is alone until its unit of work ends."""
    seen: list[int] = []

    async def change(number: int) -> None:
        async with work() as unit:
            await unit.signing_keys.lock()
            seen.append(len(await unit.signing_keys.all()))
            await unit.signing_keys.add(make_key(f"key-{number}", KeyState.NEXT))

    await asyncio.gather(*(change(number) for number in range(5)))
    assert seen == [0, 1, 2, 3, 4]
