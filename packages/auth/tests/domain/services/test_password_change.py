"""Password changes in a session, and what a new password ends."""

from dataclasses import replace
from uuid import UUID

import pytest

from tequipy_auth import (
    AuditAction,
    Auth,
    Client,
    InvalidAccessToken,
    InvalidCredentials,
    InvalidOneTimeToken,
    LoginLocked,
    SessionRevoked,
    User,
    WeakPassword,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Conflicted
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, NEW, PASSWORD, mails
from .passwords import log_in, principal_of, reset, reset_token

pytestmark = pytest.mark.usefixtures("account")


async def test_a_change_ends_only_the_other_sessions(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The caller's tokens stay valid, other sessions and earlier reset links do not, the owner gets a notice."""
    token = await reset_token(auth, work)
    other, own = await log_in(auth), await log_in(auth)
    principal = await principal_of(auth, own)
    await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=CLIENT)
    assert [mail.subject for mail in await mails(auth, work)] == ["new_sign_in", "password_changed"]
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
    principal = await principal_of(auth, await auth.login.reauthenticate(principal, password=NEW, client=CLIENT))
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
