"""Changes of address: what confirms them, what undoes them, and what an attacker cannot do with them."""

from datetime import timedelta

import pytest

from tequipy_auth import (
    Auth,
    Client,
    EmailTaken,
    InvalidAccessToken,
    InvalidAddress,
    InvalidCredentials,
    InvalidOneTimeToken,
    Principal,
    SessionRevoked,
    TokenPair,
    UserStatus,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations
from tequipy_platform import Delivery, Mail
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, NEW, PASSWORD, mails, token_of

NEW_EMAIL, THIRD_EMAIL = "ada@example.net", "ada@example.org"
OTHER_EMAIL = "bob@example.com"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

pytestmark = pytest.mark.usefixtures("account")


@pytest.fixture
async def principal(auth: Auth, pair: TokenPair) -> Principal:
    return await auth.access_tokens.verify(pair.access.value)


class Links:
    """The mails of a requested change, by their templates."""

    def __init__(self, sent: list[Mail]) -> None:
        self.mails = {mail.subject: mail for mail in sent}

    @property
    def confirm(self) -> str:
        return self._token("confirm_email")

    @property
    def undo(self) -> str:
        return self._token("undo_email")

    def _token(self, name: str) -> str:
        return token_of(self.mails[name]).split()[0]


async def request(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, email: str = NEW_EMAIL) -> Links:
    await auth.email_changes.request(principal, new_email=email, client=CLIENT)
    return Links(await mails(auth, work))


async def change(auth: Auth, work: MemoryAuthUnitOfWork, principal: Principal, email: str = NEW_EMAIL) -> Links:
    links = await request(auth, work, principal, email)
    await auth.email_changes.confirm(links.confirm, client=CLIENT)
    await mails(auth, work)
    return links


async def address(auth: Auth, principal: Principal) -> str:
    return (await auth.accounts.profile(principal.user_id)).email


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
