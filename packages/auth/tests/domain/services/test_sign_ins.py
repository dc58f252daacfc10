"""Notices of logins from new devices and address ranges, and the link that ends such a session."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import (
    Auth,
    Client,
    InvalidAccessToken,
    InvalidOneTimeToken,
    Outcome,
    SessionRevoked,
    TokenPair,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, Mail
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, NEW, PASSWORD, mails, token_of

pytestmark = pytest.mark.usefixtures("account")

THIEF = Client("203.0.113.9", "see http://evil.example.com")


async def log_in(auth: Auth, client: Client = CLIENT, mark: str | None = None) -> TokenPair:
    return await auth.login.with_password(email=EMAIL, password=PASSWORD, client=replace(client, device_mark=mark))


async def notices(auth: Auth, work: MemoryAuthUnitOfWork) -> list[Mail]:
    return [mail for mail in await mails(auth, work) if mail.subject == "new_sign_in"]


@pytest.fixture
async def mark(auth: Auth) -> str:
    """Log in for the first time and return the device mark."""
    mark = (await log_in(auth)).device_mark
    assert mark is not None
    return mark


async def test_the_first_login_is_not_mailed(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The first login, right after the registration, gets no notice; the next one from another device does."""
    await log_in(auth)
    assert await notices(auth, work) == []
    await log_in(auth)
    assert len(await notices(auth, work)) == 1


async def test_a_new_device_or_range_is_mailed(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """A known device in a known range gets no notice; a device without a mark, and a new range, each get one."""
    for client, known, expected in (
        (CLIENT, mark, 0),
        (Client("192.0.2.200", "another browser"), mark, 0),
        (CLIENT, None, 1),
        (CLIENT, "dv2.forged", 1),
        (Client("198.51.100.7"), mark, 1),
        (Client("198.51.100.8"), mark, 0),
    ):
        await log_in(auth, client, known)
        assert len(await notices(auth, work)) == expected, (client, known)


async def test_a_range_is_known_after_a_refresh(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """A session that moved to another network makes its range known."""
    pair = await log_in(auth, mark=mark)
    await auth.sessions.refresh(str(pair.refresh), client=Client("198.51.100.7"))
    await log_in(auth, Client("198.51.100.9"), mark)
    assert await notices(auth, work) == []


async def test_a_reauthentication_is_not_mailed(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """The session that goes on was mailed at its login, if it was new."""
    principal = await auth.access_tokens.verify((await log_in(auth, mark=mark)).access.value)
    await auth.login.reauthenticate(principal, password=PASSWORD, client=THIEF)
    assert await notices(auth, work) == []


async def test_notices_can_be_switched_off(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """With `sign_in_notices=False` no login is mailed."""
    auth = build_fake_auth(work, clock=clock, sign_in_notices=False)
    for client in (CLIENT, THIEF):
        await log_in(auth, client)
    assert await notices(auth, work) == []


async def test_the_mailed_link_ends_the_session(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """That session ends and no other one; the owner gets a link to set a new password; the link works once."""
    mine, thief = await log_in(auth, mark=mark), await log_in(auth, THIEF)
    (mail,) = await notices(auth, work)
    assert mail.to == EMAIL
    assert "203.0.113.9" in mail.text
    assert "evil" not in mail.text, "a stranger writes nothing into the mail"
    token = token_of(mail).split()[0]
    await auth.sign_ins.end_session(token, client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(thief.refresh), client=THIEF)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(thief.access.value)
    await auth.sessions.refresh(str(mine.refresh), client=CLIENT)
    (reset,) = await mails(auth, work)
    assert (reset.to, reset.subject) == (EMAIL, "session_ended")
    await auth.passwords.reset(token_of(reset).split()[0], new_password=NEW, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.sign_ins.end_session(token, client=CLIENT)


async def test_the_link_follows_replacements(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """A thief who has authenticated again, and so replaced the session, is out as well."""
    del mark
    thief = await log_in(auth, THIEF)
    (mail,) = await notices(auth, work)
    for _ in range(3):
        principal = await auth.access_tokens.verify(thief.access.value)
        thief = await auth.login.reauthenticate(principal, password=PASSWORD, client=THIEF)
    await auth.sign_ins.end_session(token_of(mail).split()[0], client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(thief.refresh), client=THIEF)


async def test_each_session_has_a_link_for_seven_days(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, mark: str
) -> None:
    """Links of further sessions do not push out the first one, and using one leaves the others valid."""
    del mark
    tokens = []
    for number in range(5):
        await log_in(auth, Client(f"203.0.113.{number}"))
        tokens += [token_of(mail).split()[0] for mail in await notices(auth, work)]
    assert len(tokens) == 5
    clock.advance(timedelta(days=7) - timedelta(seconds=1))
    for token in tokens[:4]:
        await auth.sign_ins.end_session(token, client=CLIENT)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(InvalidOneTimeToken):
        await auth.sign_ins.end_session(tokens[4], client=CLIENT)


async def test_a_notice_that_is_sent_again_has_the_only_link(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """A session has one valid link: that of the latest mail."""
    del mark
    await log_in(auth, THIEF)
    (asked,) = [task for task in work.outbox.tasks if task.payload.get("mail") == "new_sign_in"]
    tokens = []
    for _ in range(2):
        work.outbox.add("auth.send_mail", mail="new_sign_in", subject_id=asked.payload["subject_id"])
        tokens += [token_of(mail).split()[0] for mail in await notices(auth, work)]
    assert len(tokens) == 3
    for token in tokens[:2]:
        with pytest.raises(InvalidOneTimeToken):
            await auth.sign_ins.end_session(token, client=CLIENT)
    await auth.sign_ins.end_session(tokens[2], client=CLIENT)


async def test_an_end_is_audited(auth: Auth, work: MemoryAuthUnitOfWork, mark: str) -> None:
    """The end of the session is recorded without an actor, and so is the second use of the link."""
    del mark
    await log_in(auth, THIEF)
    (mail,) = await notices(auth, work)
    for _ in range(2):
        try:
            await auth.sign_ins.end_session(token_of(mail).split()[0], client=CLIENT)
        except InvalidOneTimeToken:
            continue
    recorded = [(event.action, event.outcome, event.reason, event.actor_id) for event in work.audit.events[-2:]]
    assert recorded == [
        ("session_revoked", Outcome.SUCCESS, "ended_by_link", None),
        ("session_revoked", Outcome.FAILURE, "token_invalid", None),
    ]


async def test_a_deleted_account_leaves_no_link_behind(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, mark: str
) -> None:
    """The link of a deleted account is invalid, and the erasure deletes it."""
    await auth.registration.create_admin(email="other@example.com", password=PASSWORD)
    principal = await auth.access_tokens.verify((await log_in(auth, mark=mark)).access.value)
    await log_in(auth, THIEF)
    (mail,) = await notices(auth, work)
    await auth.deletion.request(principal, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.sign_ins.end_session(token_of(mail).split()[0], client=CLIENT)
    clock.advance(timedelta(days=7))
    await auth.deletion.erase_due(Delivery(work.new_id(), "auth.erase_accounts"))
    assert work.one_time_tokens.rows == {}
