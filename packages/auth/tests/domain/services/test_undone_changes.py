"""Changes of address that are undone."""

from datetime import timedelta

import pytest

from tequipy_auth import (
    Auth,
    EmailTaken,
    InvalidAccessToken,
    InvalidCredentials,
    InvalidOneTimeToken,
    Principal,
    SessionRevoked,
    TokenPair,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Delivery
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, PASSWORD, mails
from .address_changes import DAY, HOUR, NEW_EMAIL, OTHER_EMAIL, THIRD_EMAIL, address, change, request

pytestmark = pytest.mark.usefixtures("account")


@pytest.fixture
async def principal(auth: Auth, pair: TokenPair) -> Principal:
    return await auth.access_tokens.verify(pair.access.value)


async def test_undo_before_the_confirmation_cancels(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, principal: Principal
) -> None:
    """The change can no longer be confirmed; the sessions continue."""
    links = await request(auth, work, principal)
    await auth.email_changes.undo(links.undo, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(links.confirm, client=CLIENT)
    assert await address(auth, principal) == EMAIL
    await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    assert await mails(auth, work) == []


async def test_undo_after_the_confirmation_restores_the_address(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, principal: Principal
) -> None:
    """The old address logs in again, all sessions have ended, and its owner gets a notice."""
    links = await change(auth, work, principal)
    assert await address(auth, principal) == NEW_EMAIL
    await auth.email_changes.undo(links.undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL, "the cached profile"
    assert [(mail.to, mail.subject) for mail in await mails(auth, work)] == [(EMAIL, "email_change_undone")]
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(pair.access.value)
    await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=NEW_EMAIL, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.undo(links.undo, client=CLIENT)


async def test_a_change_can_be_undone_for_seven_days(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, principal: Principal
) -> None:
    """The link works for seven days after the request; then the old address is free, and the change is forgotten."""
    links = await change(auth, work, principal)
    clock.advance(7 * DAY)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.undo(links.undo, client=CLIENT)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.housekeeping.purge(Delivery(work.new_id(), "auth.purge"))
    assert work.email_changes.rows == {}


async def test_the_oldest_link_undoes_every_later_change(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, principal: Principal
) -> None:
    """After any number of further changes, the first link restores the first address and ends the later links."""
    first = await change(auth, work, principal, NEW_EMAIL)
    later = []
    for number in range(6):
        clock.advance(timedelta(minutes=30))
        later.append(await change(auth, work, principal, f"thief{number}@example.org"))
    await auth.email_changes.undo(first.undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL
    for links in later:
        with pytest.raises(InvalidOneTimeToken):
            await auth.email_changes.undo(links.undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL


async def test_a_later_link_leaves_the_earlier_ones_valid(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """A thief who undoes their own second change cannot end the owner's link for the first one."""
    first = await change(auth, work, principal, NEW_EMAIL)
    second = await change(auth, work, principal, THIRD_EMAIL)
    await auth.email_changes.undo(second.undo, client=CLIENT)
    assert await address(auth, principal) == NEW_EMAIL
    await auth.email_changes.undo(first.undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL


async def test_a_mail_that_is_sent_again_leaves_earlier_links_valid(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """An attempt whose mail arrived although it failed has mailed a good link, whatever the number of attempts."""
    first = await request(auth, work, principal)
    (stored,) = work.email_changes.rows.values()
    for _ in range(5):
        work.outbox.add("auth.send_mail", mail="email_change_notice", subject_id=str(stored.id))
        await mails(auth, work)
    await auth.email_changes.undo(first.undo, client=CLIENT)


async def test_an_address_that_can_be_restored_is_not_given_away(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """While a change can be undone, its old address gets no other account, neither new nor by another change."""
    links = await change(auth, work, principal)
    with pytest.raises(EmailTaken):
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT)
    assert [mail.subject for mail in await mails(auth, work)] == ["already_registered"]
    await auth.registration.create_admin(email=OTHER_EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=OTHER_EMAIL, password=PASSWORD, client=CLIENT)
    other = await request(auth, work, await auth.access_tokens.verify(pair.access.value), EMAIL)
    assert "email_in_use" in other.mails
    await auth.email_changes.undo(links.undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL


async def test_every_change_is_mailed_a_link_that_undoes_it(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, principal: Principal
) -> None:
    """The sixth request of an hour changes nothing, so that nobody can change an address without such a link.

    An owner who undoes changes gets further links: a thief cannot use them up.
    """
    for _ in range(2):
        links = [await request(auth, work, principal, f"thief{number}@example.net") for number in range(6)]
        assert ["undo_email" in each.mails for each in links] == [True] * 5 + [False]
        assert links[5].mails == {}
        await auth.email_changes.undo(links[0].undo, client=CLIENT)
    await request(auth, work, principal)
    clock.advance(HOUR)
    assert (await request(auth, work, principal, THIRD_EMAIL)).mails.keys() == {"confirm_email", "undo_email"}
