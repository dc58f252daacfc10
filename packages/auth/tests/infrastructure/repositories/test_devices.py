"""The repository of devices: one contract suite for memory and PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from tequipy_auth import Device, Session
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork

from .entities import HOUR, NOW, Work, make_user


async def test_a_device_is_live_until_it_expires(work: Work, session: Session) -> None:
    """A device belongs to one account; storing it again renews it, but not for another account."""
    stranger = make_user("stranger@example.com")
    device = Device("phone", session.user_id, NOW, NOW + HOUR)
    async with work() as unit:
        await unit.users.add(stranger)
        await unit.devices.put(device, keep=10)
        assert await unit.devices.is_live("phone", session.user_id, at=NOW + HOUR - timedelta(microseconds=1))
        assert not await unit.devices.is_live("phone", session.user_id, at=NOW + HOUR)
        assert not await unit.devices.is_live("tablet", session.user_id, at=NOW)
        assert not await unit.devices.is_live("phone", stranger.id, at=NOW)
    async with work() as unit:
        await unit.devices.put(replace(device, last_used_at=NOW + HOUR, expires_at=NOW + 2 * HOUR), keep=10)
        await unit.devices.put(replace(device, user_id=stranger.id), keep=10)
    async with work() as unit:
        assert await unit.devices.is_live("phone", session.user_id, at=NOW + HOUR)
        assert not await unit.devices.is_live("phone", stranger.id, at=NOW)


async def test_the_least_recently_used_devices_are_deleted(work: Work, session: Session) -> None:
    """An account keeps the stored device and its most recently used other devices."""
    stranger = make_user("stranger@example.com")
    async with work() as unit:
        await unit.users.add(stranger)
        await unit.devices.put(Device("foreign", stranger.id, NOW - HOUR, NOW + HOUR), keep=3)
        for number in (3, 1, 2, 4, 0):
            used = NOW + number * timedelta(minutes=1)
            await unit.devices.put(Device(str(number), session.user_id, used, NOW + HOUR), keep=3)
    async with work() as unit:
        live = [await unit.devices.is_live(str(number), session.user_id, at=NOW) for number in range(5)]
        assert live == [True, False, False, True, True]
        assert await unit.devices.is_live("foreign", stranger.id, at=NOW)


async def test_expired_devices_are_purged(work: Work, session: Session) -> None:
    """Devices that expired before a time are deleted, no more than the limit each time."""
    async with work() as unit:
        for number in range(4):
            await unit.devices.put(Device(str(number), session.user_id, NOW, NOW + number * HOUR), keep=10)
    purged = []
    for _ in range(3):
        async with work() as unit:
            purged.append(await unit.devices.purge(before=NOW + 2 * HOUR, limit=2))
    assert purged == [2, 1, 0]
    async with work() as unit:
        assert await unit.devices.is_live("3", session.user_id, at=NOW)


@pytest.mark.parametrize("work", ["postgresql"], indirect=True)
async def test_devices_are_deleted_with_their_account(work: Work, session: Session) -> None:
    """Deleting an account deletes its devices."""
    async with work() as unit:
        assert isinstance(unit, SqlAuthUnitOfWork)
        await unit.devices.put(Device("phone", session.user_id, NOW, NOW + HOUR), keep=10)
        await unit.session.execute(text("delete from auth.users"))
        assert (await unit.session.scalar(text("select count(*) from auth.devices"))) == 0


async def test_all_devices_of_an_account_are_returned(work: Work, session: Session) -> None:
    """The one that was used last first."""
    first = Device("phone", session.user_id, NOW, NOW + HOUR)
    last = Device("tablet", session.user_id, NOW + timedelta(minutes=1), NOW + HOUR)
    async with work() as unit:
        for device in (last, first):
            await unit.devices.put(device, keep=10)
    async with work() as unit:
        assert await unit.devices.all_of(session.user_id) == [last, first]
