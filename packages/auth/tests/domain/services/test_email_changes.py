"""Changes of address: what confirms them, what undoes them, and what an attacker cannot do with them."""

import pytest

from tequipy_auth import (
    Auth,
    Client,
    InvalidAccessToken,
    InvalidAddress,
    InvalidCredentials,
    InvalidOneTimeToken,
    Principal,
    TokenPair,
    UserStatus,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations
from tequipy_platform import Delivery
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, NEW, PASSWORD, mails, token_of
from .address_changes import DAY, HOUR, NEW_EMAIL, OTHER_EMAIL, THIRD_EMAIL, address, change, request

pytestmark = pytest.mark.usefixtures("account")


@pytest.fixture
async def principal(auth: Auth, pair: TokenPair) -> Principal:
    return await auth.access_tokens.verify(pair.access.value)


async def test_a_change_is_confirmed_by_the_new_address(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, principal: Principal
) -> None:
    """The new address logs in from then on, the session continues, and the cached profile has the new address."""
    assert await address(auth, principal) == EMAIL
    links = await request(auth, work, principal, "Ada@Example.net")
    assert {name: mail.to for name, mail in links.mails.items()} == {
        "confirm_email": "Ada@Example.net",
        "undo_email": EMAIL,
    }
    assert "Ada@Example.net" in links.mails["undo_email"].text
    assert EMAIL not in links.mails["confirm_email"].text, "a stranger's mailbox does not get to know the account"
    assert await address(auth, principal) == EMAIL
    await auth.email_changes.confirm(links.confirm, client=CLIENT)
    assert await address(auth, principal) == "Ada@Example.net"
    await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    await auth.login.with_password(email=NEW_EMAIL, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(links.confirm, client=CLIENT)


async def test_a_taken_address_answers_like_a_free_one(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """The owner of a taken address gets a notice without a link; the requester sees the same as for a free address."""
    await auth.registration.create_admin(email=OTHER_EMAIL, password=PASSWORD)
    links = await request(auth, work, principal, OTHER_EMAIL)
    assert {name: mail.to for name, mail in links.mails.items()} == {"email_in_use": OTHER_EMAIL, "undo_email": EMAIL}
    assert "#token=" not in links.mails["email_in_use"].text


async def test_an_address_that_is_taken_meanwhile_is_refused(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """If the new address gets an account before the confirmation, the link is invalid and nothing has changed."""
    links = await request(auth, work, principal)
    await auth.registration.create_admin(email=NEW_EMAIL, password=PASSWORD)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(links.confirm, client=CLIENT)
    assert await address(auth, principal) == EMAIL


async def test_the_own_address_changes_nothing(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal) -> None:
    """No mail is sent for the account's own address; another spelling of it is a change like any other."""
    assert (await request(auth, work, principal, EMAIL)).mails == {}
    assert work.email_changes.rows == {}
    await change(auth, work, principal, "ADA@example.com")
    assert await address(auth, principal) == "ADA@example.com"


async def test_an_invalid_address_is_refused(auth: Auth, principal: Principal) -> None:
    """The error points at the field of the request."""
    with pytest.raises(InvalidAddress) as error:
        await auth.email_changes.request(principal, new_email="nobody", client=CLIENT)
    assert error.value.members["errors"] == [
        {"pointer": "/new_email", "code": "invalid_email", "detail": "The e-mail address is not valid."}
    ]


async def test_a_change_needs_a_live_session(auth: Auth, principal: Principal) -> None:
    """A caller whose session has ended can change nothing."""
    await auth.sessions.logout_all(principal, client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.email_changes.request(principal, new_email=NEW_EMAIL, client=CLIENT)


async def test_a_change_can_be_confirmed_for_an_hour(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, principal: Principal
) -> None:
    """After an hour the link is invalid."""
    links = await request(auth, work, principal)
    clock.advance(HOUR)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(links.confirm, client=CLIENT)


async def test_three_changes_can_be_confirmed(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal) -> None:
    """A fourth request closes the oldest; its undo link still undoes the later ones."""
    links = [await request(auth, work, principal, f"ada{number}@example.net") for number in range(4)]
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(links[0].confirm, client=CLIENT)
    await auth.email_changes.confirm(links[1].confirm, client=CLIENT)
    for other in links[2:]:
        with pytest.raises(InvalidOneTimeToken):
            await auth.email_changes.confirm(other.confirm, client=CLIENT)
    await auth.email_changes.undo(links[0].undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL


async def test_a_new_address_has_a_budget_of_mails(
    auth: Auth, work: MemoryAuthUnitOfWork, operations: RecordingOperations, principal: Principal
) -> None:
    """Several accounts together can mail five links an hour to one address; the answer stays the same."""
    people = [principal]
    for number in range(5):
        email = f"owner{number}@example.com"
        await auth.registration.create_admin(email=email, password=PASSWORD)
        pair = await auth.login.with_password(email=email, password=PASSWORD, client=CLIENT)
        people.append(await auth.access_tokens.verify(pair.access.value))
    sent = ["confirm_email" in (await request(auth, work, person)).mails for person in people]
    assert sent == [True] * 5 + [False]
    assert operations.counts["send_mail", "over_budget"] == 1


async def test_a_new_password_ends_pending_changes(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """A thief who knew the old password cannot confirm a change after the owner has chosen a new one."""
    links = await request(auth, work, principal)
    await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(links.confirm, client=CLIENT)


async def test_a_reset_link_does_not_outlive_its_address(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """Links that were mailed to another address of the account cannot reset the password, in both directions."""
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (at_old,) = await mails(auth, work)
    links = await change(auth, work, principal)
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(token_of(at_old), new_password=NEW, client=CLIENT)
    await auth.passwords.forgot(email=NEW_EMAIL, client=CLIENT)
    (at_new,) = await mails(auth, work)
    await auth.email_changes.undo(links.undo, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(token_of(at_new), new_password=NEW, client=CLIENT)


async def test_a_disabled_account_can_change_nothing(
    auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal
) -> None:
    """No link works while the account is disabled; enabled again, its owner can still undo, but confirm nothing."""
    await auth.registration.create_admin(email=OTHER_EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=OTHER_EMAIL, password=PASSWORD, client=CLIENT)
    admin = await auth.access_tokens.verify(pair.access.value)
    done = await change(auth, work, principal)
    pending = await request(auth, work, principal, THIRD_EMAIL)
    await auth.email_changes.request(principal, new_email="late@example.net", client=CLIENT)
    await auth.administration.disable(admin, principal.user_id, client=CLIENT)
    assert await mails(auth, work) == [], "a disabled account gets no mail"
    for attempt in (
        auth.email_changes.confirm(pending.confirm, client=CLIENT),
        auth.email_changes.undo(done.undo, client=CLIENT),
    ):
        with pytest.raises(InvalidOneTimeToken):
            await attempt
    await auth.administration.enable(admin, principal.user_id, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(pending.confirm, client=CLIENT)
    await auth.email_changes.undo(done.undo, client=CLIENT)
    assert await address(auth, principal) == EMAIL
    assert work.users.rows[principal.user_id].status is UserStatus.ACTIVE


async def test_locks_and_device_marks_after_a_change(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, principal: Principal
) -> None:
    """The device mark stays valid: with it the owner logs in although strangers have locked the new address."""
    await change(auth, work, principal)
    for number in range(20):
        with pytest.raises(InvalidCredentials):
            await auth.login.with_password(email=NEW_EMAIL, password="wrong", client=Client(f"203.0.113.{number}"))
    mine = Client(CLIENT.ip, CLIENT.user_agent, device_mark=pair.device_mark)
    await auth.login.with_password(email=NEW_EMAIL, password=PASSWORD, client=mine)


async def test_changes_are_audited(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal) -> None:
    """Requests, confirmations and undos are recorded without an address, and so are refused tokens of ours."""
    before = len(work.audit.events)
    links = await change(auth, work, principal)
    await request(auth, work, principal, NEW_EMAIL)
    await auth.email_changes.undo(links.undo, client=CLIENT)
    for wrong in (links.confirm, links.undo, "ev1.x.y"):
        with pytest.raises(InvalidOneTimeToken):
            await auth.email_changes.undo(wrong, client=CLIENT)
    recorded = [
        (event.action, event.outcome, event.reason)
        for event in work.audit.events[before:]
        if event.action != "session_revoked"
    ]
    assert recorded == [
        ("email_change_requested", "success", None),
        ("email_changed", "success", None),
        ("email_change_requested", "failure", "same_address"),
        ("email_change_undone", "success", "restored"),
        ("email_change_undone", "failure", "token_invalid"),
        ("email_change_undone", "failure", "token_invalid"),
    ]
    assert "example" not in repr([event.metadata for event in work.audit.events])


async def test_a_deleted_account_leaves_no_change_behind(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, principal: Principal
) -> None:
    """The export lists the changes; a deletion closes them, and the erasure deletes them with their links."""
    await auth.registration.create_admin(email=OTHER_EMAIL, password=PASSWORD)
    await change(auth, work, principal)
    pending = await request(auth, work, principal, THIRD_EMAIL)
    exported = (await auth.exports.export(principal))["email_changes"]
    assert isinstance(exported, list)
    assert [(each["old"], each["new"], each["state"]) for each in exported if isinstance(each, dict)] == [
        (NEW_EMAIL, THIRD_EMAIL, "pending"),
        (EMAIL, NEW_EMAIL, "confirmed"),
    ]
    await auth.deletion.request(principal, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.email_changes.confirm(pending.confirm, client=CLIENT)
    clock.advance(7 * DAY)
    await auth.deletion.erase_due(Delivery(work.new_id(), "auth.erase_accounts"))
    assert work.email_changes.rows == {}
    assert work.one_time_tokens.rows == {}
