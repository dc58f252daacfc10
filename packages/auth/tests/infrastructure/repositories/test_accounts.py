"""The repositories of registrations and accounts: one contract suite for memory and PostgreSQL."""

import asyncio
from dataclasses import replace

import pytest

from tequipy_auth import EmailAddress, EmailTaken, PasswordHash, Session, User, UserFilter, UserStatus
from tequipy_platform import PageRequest

from .entities import HOUR, NOW, PASSWORD, Work, make_registration, make_user, new_id


async def test_one_address_is_one_account(work: Work) -> None:
    """A second account of an address is refused, and the unit of work can still commit."""
    first, other = make_user(), make_user("other@example.com")
    async with work() as unit:
        await unit.users.add(first)
        with pytest.raises(EmailTaken):
            await unit.users.add(make_user())
        await unit.users.add(other)
    async with work() as unit:
        assert await unit.users.by_email("ada@example.com") == first
        assert await unit.users.get(other.id) == other


async def test_concurrent_accounts_of_an_address_are_refused(work: Work) -> None:
    """Of 10 concurrent accounts of one address one is stored, the others raise `EmailTaken`."""

    async def add() -> None:
        async with work() as unit:
            await unit.users.add(make_user())

    answers = await asyncio.gather(*(add() for _ in range(10)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["EmailTaken"] * 9 + ["NoneType"]


async def test_registrations_are_deleted_by_address(work: Work) -> None:
    """All registrations of the address are deleted, others stay."""
    mine, more, others = make_registration(), make_registration(), make_registration("other@example.com")
    async with work() as unit:
        for registration in (mine, more, others):
            await unit.registrations.add(registration)
        await unit.registrations.delete_for("ada@example.com")
    async with work() as unit:
        found = [await unit.registrations.get(registration.id) for registration in (mine, more, others)]
        assert found == [None, None, others]


async def test_the_lock_of_an_account_is_exclusive(work: Work) -> None:
    """The next holder of the lock sees the previous changes; inserting a session does not wait."""
    user = make_user()
    async with work() as unit:
        await unit.users.add(user)
    renamed = asyncio.Event()

    async def rename() -> None:
        async with work() as unit:
            assert await unit.users.lock(user.id) == user
            renamed.set()
            await asyncio.sleep(0)
            await unit.users.set_name(user.id, "Countess")

    async def read() -> None:
        await renamed.wait()
        async with work() as unit:
            locked = await unit.users.lock(user.id)
            assert locked is not None
            assert locked.name == "Countess"

    await asyncio.gather(rename(), read())
    async with work() as unit:
        assert await unit.users.lock(new_id()) is None


async def test_an_account_changes_in_parts(work: Work) -> None:
    """Password, verification and name are changed separately; an unknown account changes nothing."""
    user = replace(make_user(), email_verified=False)
    password = PasswordHash("other", 4, 9, "other digest")
    async with work() as unit:
        await unit.users.add(user)
    async with work() as unit:
        await unit.users.set_password(user.id, password)
        await unit.users.set_verified(user.id)
        assert await unit.users.set_name(user.id, None) == replace(
            user, password=password, password_epoch=1, email_verified=True, name=None
        )
        assert await unit.users.set_name(new_id(), "Nobody") is None
        await unit.users.set_password(new_id(), password)
        await unit.users.renew_password_hash(new_id(), password)
        await unit.users.set_verified(new_id())


async def test_a_new_password_increments_the_epoch(work: Work, session: Session) -> None:
    """Setting a password increments the epoch; a new hash of the same password does not."""
    other = PasswordHash("scheme", 13, 3, "another digest")
    for epoch in (1, 2):
        async with work() as unit:
            await unit.users.set_password(session.user_id, PASSWORD)
            await unit.users.renew_password_hash(session.user_id, other)
            user = await unit.users.get(session.user_id)
        assert user is not None
        assert (user.password_epoch, user.password) == (epoch, other)


async def test_the_newest_registration_of_an_address(work: Work) -> None:
    """The latest unexpired registration of an address is returned."""
    older = replace(make_registration(), created_at=NOW - HOUR)
    newer, foreign = make_registration(), make_registration("bob@example.com")
    async with work() as unit:
        for registration in (newer, older, foreign):
            await unit.registrations.add(registration)
        assert await unit.registrations.newest_of("ada@example.com", at=NOW) == newer
        assert await unit.registrations.newest_of("ada@example.com", at=newer.expires_at) is None
        assert await unit.registrations.newest_of("nobody@example.com", at=NOW) is None


async def test_the_highest_password_cost_is_one_that_may_be_checked(work: Work) -> None:
    """It is 0 without accounts, and ignores costs that are never checked."""
    async with work() as unit:
        assert await unit.users.highest_password_cost() == 0
        for cost in (12, 14, 16, 10):
            user = make_user(f"{cost}@example.com")
            await unit.users.add(replace(user, password=replace(user.password, cost=cost)))
    async with work() as unit:
        assert await unit.users.highest_password_cost() == 14


async def test_pending_registrations_are_counted(work: Work) -> None:
    """Only unexpired registrations of the address are counted."""
    async with work() as unit:
        for email in ("ada@example.com", "ada@example.com", "bob@example.com"):
            await unit.registrations.add(make_registration(email))
    async with work() as unit:
        await unit.registrations.lock("ada@example.com")
        assert await unit.registrations.count_pending("ada@example.com", at=NOW) == 2
        assert await unit.registrations.count_pending("ada@example.com", at=NOW + HOUR) == 0
        assert await unit.registrations.count_pending("nobody@example.com", at=NOW) == 0


async def test_accounts_are_returned_in_pages(work: Work) -> None:
    """Every account is on one page, the newest first, although others arrive between two pages."""
    users = [make_user(f"user{each}@example.com") for each in range(5)]
    async with work() as unit:
        for user in users:
            await unit.users.add(user)
    found: list[User] = []
    request = PageRequest(limit=2)
    while True:
        async with work() as unit:
            page = await unit.users.page(request, UserFilter())
            await unit.users.add(make_user(f"later{len(found)}@example.com"))
        found += page.items
        if page.next_after is None:
            break
        request = PageRequest(2, page.next_after)
    assert found == users[::-1]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (UserFilter(), ["carol", "bob", "ada"]),
        (UserFilter("ADA@"), ["ada"]),
        (UserFilter("da@"), []),
        (UserFilter("strö"), ["carol"]),
        (UserFilter("%"), []),
        (UserFilter("_"), []),
        (UserFilter("ada", UserStatus.DISABLED), []),
        (UserFilter(status=UserStatus.DISABLED), ["bob"]),
        (UserFilter(role="support"), ["bob", "ada"]),
        (UserFilter("ada", role="support"), ["ada"]),
        (UserFilter(role="supp"), []),
    ],
)
async def test_accounts_are_found(work: Work, wanted: UserFilter, found: list[str]) -> None:
    """By the beginning of the address, a part of the name in any case, status and role; wildcards mean themselves."""
    async with work() as unit:
        await unit.users.add(replace(make_user("ada@example.com"), name=None, roles=("admin", "support")))
        bob = replace(make_user("bob@example.com"), status=UserStatus.DISABLED, name="Bob", roles=("support",))
        await unit.users.add(bob)
        await unit.users.add(replace(make_user("carol@example.com"), name="Carol Ström"))
    async with work() as unit:
        page = await unit.users.page(PageRequest(), wanted)
    assert [user.email.canonical.partition("@")[0] for user in page.items] == found


async def test_roles_and_status_are_replaced(work: Work) -> None:
    """The account shows its new roles and status, and the time of its erasure."""
    user = make_user()
    async with work() as unit:
        await unit.users.add(user)
        await unit.users.set_roles(user.id, ("support",))
        await unit.users.set_status(user.id, UserStatus.DELETING, erase_at=NOW)
    async with work() as unit:
        changed = replace(user, roles=("support",), status=UserStatus.DELETING, erase_at=NOW)
        assert await unit.users.get(user.id) == changed
        assert await unit.users.any_has_role("support")
        assert not await unit.users.any_has_role("admin")


async def test_another_active_administrator_is_found(work: Work) -> None:
    """Only an active account other than the given one counts."""
    one, other = make_user(), make_user("other@example.com")
    async with work() as unit:
        await unit.users.lock_administrators()
        await unit.users.add(one)
        assert not await unit.users.has_other_administrator(one.id)
        await unit.users.add(other)
        assert await unit.users.has_other_administrator(one.id)
        await unit.users.set_status(other.id, UserStatus.DISABLED)
        assert not await unit.users.has_other_administrator(one.id)


async def test_only_due_deletions_are_erased(work: Work) -> None:
    """An account is due when it is being deleted and its time has come; afterwards it is gone with its sessions."""
    users = [make_user(f"user{each}@example.com") for each in range(3)]
    async with work() as unit:
        for user in users:
            await unit.users.add(user)
        await unit.users.set_status(users[0].id, UserStatus.DELETING, erase_at=NOW)
        await unit.users.set_status(users[1].id, UserStatus.DELETING, erase_at=NOW + HOUR)
        await unit.users.set_status(users[2].id, UserStatus.DISABLED)
    async with work() as unit:
        assert list(await unit.users.due_for_erasure(at=NOW, limit=10)) == [users[0].id]
        assert list(await unit.users.due_for_erasure(at=NOW + HOUR, limit=1)) == [users[0].id]
        await unit.users.erase(users[0].id)
    async with work() as unit:
        assert await unit.users.get(users[0].id) is None
        assert list(await unit.users.due_for_erasure(at=NOW, limit=10)) == []


@pytest.mark.parametrize("query", ["Ada@B", "ada@bü", "ada@bücher.example", "ada@xn--b"])
async def test_accounts_are_found_by_the_address_as_it_was_written(work: Work, query: str) -> None:
    """An international domain is found by its beginning in Unicode, and by that of its ASCII form."""
    address = EmailAddress("ada@bücher.example", "ada@xn--bcher-kva.example")
    async with work() as unit:
        await unit.users.add(replace(make_user("x@example.com"), email=address))
        await unit.users.add(make_user("ada@other.example"))
    async with work() as unit:
        page = await unit.users.page(PageRequest(), UserFilter(query))
    assert [user.email for user in page.items] == [address]
