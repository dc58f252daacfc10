"""The repository of mail charges: one contract suite for memory and PostgreSQL."""

import asyncio
from datetime import timedelta
from uuid import UUID

from .entities import HOUR, NOW, Work, new_id


async def charge(work: Work, message_id: UUID, *, key: str = "a", at: timedelta = timedelta(0)) -> bool:
    """Charge a message to a budget of 2 per hour."""
    async with work() as unit:
        return await unit.mail_charges.charge(message_id, key, at=NOW + at, since=NOW + at - HOUR, limit=2)


async def test_a_budget_is_charged_once_for_each_message(work: Work) -> None:
    """Charging a message again moves its charge to the later time; a third message is refused until then."""
    first, second, third = new_id(), new_id(), new_id()
    assert [await charge(work, each) for each in (first, second, third, first)] == [True, True, False, True]
    assert await charge(work, third, key="b"), "another key has a budget of its own"
    assert await charge(work, first, at=HOUR / 2)
    fourth, fifth = new_id(), new_id()
    assert [await charge(work, each, at=HOUR) for each in (fourth, fifth)] == [True, False]


async def test_a_charge_is_released(work: Work) -> None:
    """A released charge makes room for another message; releasing an uncharged message is no error."""
    first, second, third = new_id(), new_id(), new_id()
    assert await charge(work, first)
    assert await charge(work, second)
    async with work() as unit:
        await unit.mail_charges.release(first)
        await unit.mail_charges.release(new_id())
    assert await charge(work, third)


async def test_old_charges_are_purged(work: Work) -> None:
    """Charges from before a time are deleted, no more than the limit each time."""
    for number in range(3):
        await charge(work, new_id(), key=str(number))
    await charge(work, new_id(), at=HOUR)
    async with work() as unit:
        assert await unit.mail_charges.purge(before=NOW, limit=2) == 2
        assert await unit.mail_charges.purge(before=NOW, limit=2) == 1
        assert await unit.mail_charges.purge(before=NOW, limit=2) == 0


async def test_concurrent_charges_do_not_exceed_the_budget(work: Work) -> None:
    """Two of 20 concurrent charges succeed."""
    outcomes = await asyncio.gather(*(charge(work, new_id()) for _ in range(20)))
    assert outcomes.count(True) == 2
