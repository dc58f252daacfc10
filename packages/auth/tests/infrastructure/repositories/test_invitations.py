"""The repository of invitations: one contract suite for memory and PostgreSQL."""

from datetime import timedelta
from uuid import UUID

import pytest

from tequipy_auth import EmailAddress, Invitation
from tequipy_platform import Page, PageRequest

from .entities import HOUR, NOW, Work, make_user, new_id


@pytest.fixture
async def inviter(work: Work) -> UUID:
    user = make_user("admin@example.com")
    async with work() as unit:
        await unit.users.add(user)
    return user.id


def invitation(inviter: UUID, email: str = "ada@example.com", *, ttl: timedelta = HOUR) -> Invitation:
    return Invitation(new_id(), EmailAddress(email.title(), email), ("support", "user"), inviter, NOW, NOW + ttl)


async def put(work: Work, *invitations: Invitation) -> None:
    async with work() as unit:
        for each in invitations:
            await unit.invitations.put(each)


async def page(work: Work, request: PageRequest, at: timedelta = timedelta(0)) -> Page[Invitation]:
    async with work() as unit:
        return await unit.invitations.page(request, at=NOW + at)


async def test_an_invitation_is_stored_and_deleted(work: Work, inviter: UUID) -> None:
    """It is found by its id and by its address as it was stored, until it is deleted."""
    stored = invitation(inviter)
    await put(work, stored)
    async with work() as unit:
        assert await unit.invitations.get(stored.id) == stored
        assert await unit.invitations.get(new_id()) is None
        assert await unit.invitations.of("ada@example.com") == stored
        assert await unit.invitations.of("another@example.com") is None
        await unit.invitations.delete_for("another@example.com")
        assert await unit.invitations.get(stored.id) == stored
        await unit.invitations.delete_for("ada@example.com")
        assert await unit.invitations.get(stored.id) is None


async def test_a_further_invitation_replaces_the_earlier_one(work: Work, inviter: UUID) -> None:
    """The earlier id is unknown, and the address has one invitation."""
    earlier, later = invitation(inviter), invitation(inviter, ttl=2 * HOUR)
    await put(work, earlier, later)
    async with work() as unit:
        assert await unit.invitations.get(earlier.id) is None
        assert await unit.invitations.get(later.id) == later
    assert (await page(work, PageRequest())).items == [later]


async def test_pages_have_open_invitations_alone(work: Work, inviter: UUID) -> None:
    """Expired ones are left out, and those of addresses with an account; the newest comes first."""
    first, expired, taken, last = [
        invitation(inviter, f"{name}@example.com", ttl=HOUR * hours)
        for name, hours in (("first", 2), ("expired", 1), ("taken", 2), ("last", 2))
    ]
    await put(work, first, expired, taken, last)
    async with work() as unit:
        await unit.users.add(make_user("taken@example.com"))
    assert (await page(work, PageRequest(), HOUR)).items == [last, first]
    one = await page(work, PageRequest(limit=1), HOUR)
    assert (one.items, one.next_after) == ([last], last.id)
    assert await page(work, PageRequest(limit=1, after=last.id), HOUR) == Page([first])


async def test_roles_of_open_invitations_are_found(work: Work, inviter: UUID) -> None:
    """Neither an expired invitation nor one of an address with an account counts."""
    await put(work, invitation(inviter), invitation(inviter, "taken@example.com", ttl=3 * HOUR))
    async with work() as unit:
        await unit.users.add(make_user("taken@example.com"))
    async with work() as unit:
        assert await unit.invitations.any_has_role("support", at=NOW)
        assert not await unit.invitations.any_has_role("suppor", at=NOW)
        assert not await unit.invitations.any_has_role("support", at=NOW + HOUR)


async def test_expired_invitations_are_purged(work: Work, inviter: UUID) -> None:
    """Up to the limit of expired ones is deleted at a time, and no other one."""
    kept = invitation(inviter, "kept@example.com", ttl=2 * HOUR)
    await put(work, kept, *(invitation(inviter, f"{number}@example.com") for number in range(3)))
    async with work() as unit:
        assert [await unit.invitations.purge(before=NOW + HOUR, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await unit.invitations.get(kept.id) == kept
