"""Password resets by mail: their links, what they end, and whom they protect from locks."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tequipy_auth import (
    AuditAction,
    Auth,
    Client,
    InvalidAccessToken,
    InvalidAddress,
    InvalidCredentials,
    InvalidOneTimeToken,
    LoginLocked,
    OneTimeTokenValue,
    Outcome,
    SessionRevoked,
    UserStatus,
    WeakPassword,
)
from tequipy_auth.testing import COMMON_PASSWORD, MemoryAuthUnitOfWork
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, NEW, PASSWORD, mails
from .passwords import log_in, reset, reset_token

pytestmark = pytest.mark.usefixtures("account")


async def test_a_reset_request_creates_the_same_row_for_every_address(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Known, unknown and pending addresses create the same outbox row; only the known one gets a mail."""
    await auth.registration.register(email="pending@example.com", password=PASSWORD, client=CLIENT)
    work.outbox.tasks.clear()
    for email in (EMAIL.upper(), "nobody@example.com", "pending@example.com"):
        await auth.passwords.forgot(email=email, client=CLIENT)
    assert [(asked.task, asked.payload["mail"]) for asked in work.outbox.tasks] == [
        ("auth.send_mail", "reset_password")
    ] * 3
    assert "example.com" not in repr(work.outbox.tasks)
    assert [mail.to for mail in await mails(auth, work)] == [EMAIL]
    with pytest.raises(InvalidAddress):
        await auth.passwords.forgot(email="nobody", client=CLIENT)


@pytest.mark.parametrize("status", [UserStatus.DISABLED, UserStatus.DELETING])
async def test_only_an_active_account_gets_a_new_password(
    auth: Auth, work: MemoryAuthUnitOfWork, status: UserStatus
) -> None:
    """A link that still exists when the account is disabled or being deleted is invalid, and changes nothing."""
    token = await reset_token(auth, work)
    (user,) = work.users.rows.values()
    await work.users.set_status(user.id, status)
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(token, new_password=NEW, client=CLIENT)
    assert work.users.rows[user.id].password == user.password


async def test_a_reset_sets_the_password_and_ends_every_session(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The new password works, the old one does not, every session has ended, and the owner gets a notice."""
    pair = await log_in(auth)
    await auth.passwords.reset(await reset_token(auth, work), new_password=NEW, client=CLIENT)
    assert [mail.subject for mail in await mails(auth, work)] == ["password_changed"]
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(pair.access.value)
    with pytest.raises(InvalidCredentials):
        await log_in(auth)
    assert len(work.sessions.rows) == 1, "nobody is logged in by a reset"
    await log_in(auth, NEW)


async def test_a_reset_ends_every_lock_of_the_account(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """After a reset the owner can log in from everywhere; a locked client address stays locked for other accounts."""
    device = (await log_in(auth)).device_mark
    places = [CLIENT, Client("198.51.100.7"), replace(CLIENT, device_mark=device)]
    for place in places:
        for _ in range(5):
            with pytest.raises(InvalidCredentials):
                await log_in(auth, "wrong", place)
        with pytest.raises(LoginLocked):
            await log_in(auth, PASSWORD, place)
    await auth.passwords.reset(await reset_token(auth, work), new_password=NEW, client=CLIENT)
    for place in places:
        await log_in(auth, NEW, place)
    assert {key.scope.label for key, counter in work.attempts.rows.items() if counter.failed_at} == {"client"}


async def test_a_reset_link_works_once_within_30_minutes(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """It works before 30 minutes have passed, and its use invalidates all other links."""
    first = await reset_token(auth, work)
    clock.advance(timedelta(minutes=29))
    second = await reset_token(auth, work)
    clock.advance(timedelta(minutes=1))
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(first, new_password=NEW, client=CLIENT)
    third = await reset_token(auth, work)
    await auth.passwords.reset(second, new_password=NEW, client=CLIENT)
    for token in (second, third):
        with pytest.raises(InvalidOneTimeToken):
            await auth.passwords.reset(token, new_password=PASSWORD, client=CLIENT)
    await log_in(auth, NEW)


async def test_three_reset_links_are_valid(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """The fourth link invalidates the oldest."""
    tokens = []
    for _ in range(4):
        tokens.append(await reset_token(auth, work))
        clock.advance(timedelta(seconds=1))
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(tokens[0], new_password=NEW, client=CLIENT)
    await auth.passwords.reset(tokens[1], new_password=NEW, client=CLIENT)


async def test_one_of_two_parallel_resets_succeeds(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A token that is used twice at the same time sets one password."""
    token = await reset_token(auth, work)
    answers = await asyncio.gather(
        *(auth.passwords.reset(token, new_password=f"{NEW} {number}", client=CLIENT) for number in range(5)),
        return_exceptions=True,
    )
    assert sorted(map(str, map(type, answers))) == sorted(map(str, [type(None), *[InvalidOneTimeToken] * 4]))


@pytest.mark.parametrize("weak", ["short", COMMON_PASSWORD, EMAIL])
async def test_a_weak_password_leaves_the_link_valid(auth: Auth, work: MemoryAuthUnitOfWork, weak: str) -> None:
    """After a weak password was refused, the same link accepts another one."""
    token = await reset_token(auth, work)
    with pytest.raises(WeakPassword):
        await auth.passwords.reset(token, new_password=weak, client=CLIENT)
    await auth.passwords.reset(token, new_password=NEW, client=CLIENT)


async def test_invalid_reset_tokens_are_refused_before_the_password_check(
    auth: Auth, work: MemoryAuthUnitOfWork
) -> None:
    """Malformed, forged and foreign tokens get the same answer for any password; issued ones are audited."""
    token = await reset_token(auth, work)
    await auth.registration.register(email="bob@example.com", password=PASSWORD, client=CLIENT)
    (mail,) = await mails(auth, work)
    forged = OneTimeTokenValue.new(OneTimeTokenValue.parse(token).id, bytes(32))
    recorded = len(work.audit.events)
    unknown = OneTimeTokenValue.new(work.new_id(), bytes(32))
    foreign = OneTimeTokenValue.parse(mail.text.partition("#token=")[2].strip())
    for wrong in ("", "ev1.x.y", str(unknown), str(forged), str(foreign)):
        with pytest.raises(InvalidOneTimeToken):
            await auth.passwords.reset(wrong, new_password="short", client=CLIENT)
    assert [(event.action, event.outcome, event.reason, event.metadata) for event in work.audit.events[recorded:]] == [
        (AuditAction.RESET_DONE, Outcome.FAILURE, "token_invalid", {"token": str(each.id)})
        for each in (forged, foreign)
    ]
    await auth.passwords.reset(token, new_password=NEW, client=CLIENT)


async def test_a_reset_verifies_the_address(work: MemoryAuthUnitOfWork, auth: Auth) -> None:
    """A reset verifies the address of an open account, because its link was sent there."""
    (user,) = work.users.rows.values()
    work.users.rows[user.id] = replace(user, email_verified=False)
    await auth.passwords.reset(await reset_token(auth, work), new_password=NEW, client=CLIENT)
    await log_in(auth, NEW)


async def test_after_a_reset_others_cannot_lock_its_client_address_out(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """For an hour, or until the owner's next login there, only failures from that client address lock it."""
    await reset(auth, work, NEW)

    async def attack() -> None:
        for number in range(20):
            with pytest.raises((InvalidCredentials, LoginLocked)):
                await log_in(auth, "wrong", Client(f"203.0.113.{number}"))
        with pytest.raises(LoginLocked):
            await log_in(auth, NEW, Client("198.51.100.7"))

    await attack()
    for _ in range(4):
        with pytest.raises(InvalidCredentials):
            await log_in(auth, "mistyped")
    await log_in(auth, NEW)
    await attack()
    with pytest.raises(LoginLocked):
        await log_in(auth, NEW)
    await reset(auth, work, PASSWORD)
    await attack_with(auth, 5)
    with pytest.raises(LoginLocked):
        await log_in(auth, PASSWORD)
    await reset(auth, work, NEW)
    clock.advance(timedelta(hours=1))
    await attack()
    with pytest.raises(LoginLocked):
        await log_in(auth, NEW)


async def attack_with(auth: Auth, failures: int) -> None:
    """Fail from the owner's own client address."""
    for _ in range(failures):
        with pytest.raises(InvalidCredentials):
            await log_in(auth, "wrong")
