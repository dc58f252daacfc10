"""Password reset and change, with the in-memory fakes."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

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
    Principal,
    SessionRevoked,
    TokenPair,
    User,
    WeakPassword,
)
from tequipy_auth.testing import COMMON_PASSWORD, MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Conflicted, Delivery, Mail
from tequipy_platform.testing import FrozenClock, RecordingMailer

PASSWORD, NEW = "correct horse battery staple", "an even better password"
EMAIL = "ada@example.com"
CLIENT = Client("192.0.2.1", "test")


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
async def auth(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    auth = build_fake_auth(work, clock=clock)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    return auth


async def mails(auth: Auth, work: MemoryAuthUnitOfWork) -> list[Mail]:
    """Run the tasks of the outbox and return the mails."""
    mailer = RecordingMailer()
    asked = [added for added in work.outbox.tasks if added.task == "auth.send_mail"]
    work.outbox.tasks.clear()
    for added in asked:
        payload: dict[str, Any] = added.payload
        await auth.mailing(mailer).send_mail(Delivery(work.new_id(), added.task), **payload)
    return mailer.mails


async def reset_token(auth: Auth, work: MemoryAuthUnitOfWork) -> str:
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (mail,) = await mails(auth, work)
    link, _, token = mail.text.partition("#token=")
    assert link.endswith("/reset-password")
    return token.strip()


async def log_in(auth: Auth, password: str = PASSWORD, client: Client = CLIENT) -> TokenPair:
    return await auth.login.with_password(email=EMAIL, password=password, client=client)


async def principal_of(auth: Auth, pair: TokenPair) -> Principal:
    return await auth.access_tokens.verify(pair.access.value)


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


async def test_a_change_ends_only_the_other_sessions(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The caller's tokens stay valid, other sessions and earlier reset links do not, the owner gets a notice."""
    token = await reset_token(auth, work)
    other, own = await log_in(auth), await log_in(auth)
    principal = await principal_of(auth, own)
    await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=CLIENT)
    assert [mail.subject for mail in await mails(auth, work)] == ["password_changed"]
    assert await principal_of(auth, own) == principal
    await auth.sessions.refresh(str(own.refresh), client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(other.refresh), client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await principal_of(auth, other)
    with pytest.raises(InvalidOneTimeToken):
        await auth.passwords.reset(token, new_password=PASSWORD, client=CLIENT)
    await log_in(auth, NEW)


async def test_transactions_are_retried_after_a_conflict(
    auth: Auth, work: MemoryAuthUnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reset, login, reauthentication and change repeat their last transaction after a serialisation failure."""
    token, lock = await reset_token(auth, work), work.users.lock
    tries = iter(range(20))

    async def lock_at_the_second_try(user_id: UUID) -> User | None:
        if next(tries) % 2 == 0:
            raise Conflicted
        return await lock(user_id)

    monkeypatch.setattr(work.users, "lock", lock_at_the_second_try)
    await auth.passwords.reset(token, new_password=NEW, client=CLIENT)
    principal = await principal_of(auth, await log_in(auth, NEW))
    await auth.login.reauthenticate(principal, password=NEW, client=CLIENT)
    await auth.passwords.change(principal, current_password=NEW, new_password=PASSWORD, client=CLIENT)
    assert next(tries) == 8


async def test_a_change_uses_the_counter_of_its_session(auth: Auth) -> None:
    """Wrong current passwords lock the session, not the login; a weak new password is refused before that."""
    principal = await principal_of(auth, await log_in(auth))
    for _ in range(10):
        with pytest.raises(WeakPassword):
            await auth.passwords.change(principal, current_password="wrong", new_password="short", client=CLIENT)
    for _ in range(5):
        with pytest.raises(InvalidCredentials):
            await auth.passwords.change(principal, current_password="wrong", new_password=NEW, client=CLIENT)
    with pytest.raises(LoginLocked):
        await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=CLIENT)
    other = await principal_of(auth, await log_in(auth))
    await auth.passwords.change(other, current_password=PASSWORD, new_password=NEW, client=CLIENT)


async def reset(auth: Auth, work: MemoryAuthUnitOfWork, password: str) -> None:
    """Reset the password by mail and send the notice."""
    await auth.passwords.reset(await reset_token(auth, work), new_password=password, client=CLIENT)
    await mails(auth, work)


async def test_a_new_password_ends_all_device_marks(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A change and a reset end all device marks; a renewed hash of the same password ends none."""

    async def is_marked(password: str, device: str | None) -> bool:
        """Lock the address, then return whether the mark allows a login."""
        place = Client("198.51.100.99")
        for _ in range(5):
            with pytest.raises((InvalidCredentials, LoginLocked)):
                await log_in(auth, "wrong", place)
        try:
            await log_in(auth, password, replace(place, device_mark=device))
        except LoginLocked:
            return False
        return True

    pair = await log_in(auth)
    assert await is_marked(PASSWORD, pair.device_mark)
    (user,) = work.users.rows.values()
    await work.users.renew_password_hash(user.id, user.password)
    assert await is_marked(PASSWORD, pair.device_mark)
    principal = await principal_of(auth, pair)
    await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=CLIENT)
    await mails(auth, work)
    assert not await is_marked(NEW, pair.device_mark)
    pair = await log_in(auth, NEW)
    assert await is_marked(NEW, pair.device_mark)
    await reset(auth, work, PASSWORD)
    assert not await is_marked(PASSWORD, pair.device_mark)


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


async def test_an_ended_session_cannot_change_the_password(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """An unexpired access token of an ended session is refused."""
    principal = await principal_of(auth, await log_in(auth))
    await work.sessions.revoke(principal.session_id, at=clock.now(), reason="logout")
    with pytest.raises(InvalidAccessToken):
        await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=CLIENT)


async def test_new_passwords_are_audited(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The audit contains the request, the reset, the change and the ended sessions in order."""
    other, own = await principal_of(auth, await log_in(auth)), await principal_of(auth, await log_in(auth))
    work.audit.rows.clear()
    await auth.passwords.change(own, current_password=PASSWORD, new_password=NEW, client=CLIENT)
    work.outbox.tasks.clear()
    await auth.passwords.reset(await reset_token(auth, work), new_password=PASSWORD, client=CLIENT)
    user_id = own.user_id
    recorded = [
        (event.action, event.reason, event.actor_id, event.subject_id, event.session_id) for event in work.audit.events
    ]
    assert recorded == [
        (AuditAction.SESSION_REVOKED, "password_changed", user_id, user_id, other.session_id),
        (AuditAction.PASSWORD_CHANGED, None, user_id, user_id, own.session_id),
        (AuditAction.RESET_REQUESTED, None, None, user_id, None),
        (AuditAction.SESSION_REVOKED, "password_reset", None, user_id, own.session_id),
        (AuditAction.RESET_DONE, None, None, user_id, None),
    ]
    assert {event.client for event in work.audit.events} == {CLIENT}
