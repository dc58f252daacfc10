"""Invitations: who may give which roles, what is mailed, and what a link is good for."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tequipy_auth import (
    Auth,
    AuthPolicy,
    InvalidOneTimeToken,
    RegistrationClosed,
    Role,
    UnknownRole,
    UserStatus,
    WeakPassword,
)
from tequipy_auth.testing import COMMON_PASSWORD, MemoryAuthUnitOfWork, RecordingOperations, build_fake_auth
from tequipy_platform import Forbidden, Mail, NotFound, PageRequest
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, MOMENT, PASSWORD, account_of, mailed_tokens, mails, principal_of

NEWCOMER = "grace@example.com"
PERMISSIONS = ("audit:read", "roles:write", "users:read", "users:write")
pytestmark = pytest.mark.usefixtures("account")


async def invite(auth: Auth, work: MemoryAuthUnitOfWork, *roles: str, email: str = NEWCOMER) -> None:
    await auth.invitations.invite(principal_of(work), email=email, roles=roles or ("user",), client=CLIENT)


async def invited(auth: Auth, work: MemoryAuthUnitOfWork, *roles: str) -> str:
    """Invite the newcomer, and return the token of the mail."""
    await invite(auth, work, *roles)
    (token,) = await mailed_tokens(auth, work)
    return token


async def test_an_invitation_becomes_an_account(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The link creates a verified account with the roles; pending registrations of the address end."""
    await auth.registration.register(email=NEWCOMER, password="a stranger's password", client=CLIENT)
    work.outbox.tasks.clear()
    token = await invited(auth, work, "user", "support")
    await auth.invitations.accept(token, password=PASSWORD, name=" Grace ", client=CLIENT)
    user = account_of(work, NEWCOMER)
    assert (user.email_verified, user.roles, user.name, user.status) == (
        True,
        ("support", "user"),
        "Grace",
        UserStatus.ACTIVE,
    )
    assert not work.registrations.rows
    assert not work.invitations.rows
    await auth.login.with_password(email=NEWCOMER, password=PASSWORD, client=CLIENT)
    events = [row.event for row in work.audit.rows if row.event.action in {"user_invited", "registered"}][-2:]
    admin = account_of(work)
    assert [(event.action, event.reason, event.actor_id, event.subject_id) for event in events] == [
        ("user_invited", None, admin.id, None),
        ("registered", "invitation", user.id, user.id),
    ]
    assert NEWCOMER not in str(events)


async def test_an_account_gets_a_notice(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """An address with an account gets a notice without a link; the account and its roles stay."""
    before = account_of(work)
    await invite(auth, work, "user", email=EMAIL)
    (mail,) = await mails(auth, work)
    assert (mail.to, mail.subject) == (EMAIL, "invited_with_account")
    assert "#token=" not in mail.text
    assert account_of(work) == before
    assert (await auth.invitations.page(PageRequest())).items == []


@pytest.mark.parametrize("status", [UserStatus.DISABLED, UserStatus.DELETING])
async def test_an_account_that_is_not_active_gets_nothing(
    auth: Auth, work: MemoryAuthUnitOfWork, status: UserStatus
) -> None:
    """No mail is sent to a disabled account, and to one that is being deleted."""
    await auth.registration.create_admin(email=NEWCOMER, password=PASSWORD)
    await work.users.set_status(account_of(work, NEWCOMER).id, status)
    await invite(auth, work)
    assert await mails(auth, work) == []


async def sent_to(auth: Auth, work: MemoryAuthUnitOfWork, invitations: int, email: str) -> list[Mail]:
    """Invite and return the mails."""
    sent: list[Mail] = []
    for _ in range(invitations):
        await invite(auth, work, email=email)
        sent += await mails(auth, work)
    return sent


@pytest.mark.parametrize("email", [NEWCOMER, EMAIL], ids=["unknown", "known"])
async def test_invitations_have_a_mail_budget(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock, email: str, operations: RecordingOperations
) -> None:
    """An address gets at most five mails about invitations an hour, links and notices alike."""
    limit = AuthPolicy().mails_per_hour
    assert len(await sent_to(auth, work, limit, email)) == limit
    assert not await sent_to(auth, work, 1, email)
    assert operations.counts["send_mail", "over_budget"] == 1
    clock.advance(timedelta(hours=1))
    assert await sent_to(auth, work, 1, email)


async def test_a_further_invitation_replaces_the_earlier_one(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """After a second invitation, the first link is invalid, and the second gives its own roles."""
    first = await invited(auth, work, "admin")
    second = await invited(auth, work, "user")
    with pytest.raises(InvalidOneTimeToken):
        await auth.invitations.accept(first, password=PASSWORD, client=CLIENT)
    await auth.invitations.accept(second, password=PASSWORD, client=CLIENT)
    assert account_of(work, NEWCOMER).roles == ("user",)


async def test_a_link_works_once_for_seven_days(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """It is good until 7 days after the invitation, also if the mail was late, and is used up by the acceptance."""
    await invite(auth, work)
    clock.advance(timedelta(days=6))
    (late,) = await mailed_tokens(auth, work)
    clock.advance(timedelta(days=1) - MOMENT)
    assert len((await auth.invitations.page(PageRequest())).items) == 1
    with pytest.raises(WeakPassword):
        await auth.invitations.accept(late, password=COMMON_PASSWORD, client=CLIENT)
    clock.advance(MOMENT)
    assert (await auth.invitations.page(PageRequest())).items == []
    with pytest.raises(InvalidOneTimeToken):
        await auth.invitations.accept(late, password=PASSWORD, client=CLIENT)
    token = await invited(auth, work)
    await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)


async def test_an_expired_invitation_is_not_mailed(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """A mail that could not be sent for 7 days is not sent any more."""
    await invite(auth, work)
    clock.advance(timedelta(days=7))
    assert await mails(auth, work) == []


async def test_an_address_with_an_account_cannot_accept(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """If the address has got an account meanwhile, the link is invalid, and the refusal is audited."""
    token = await invited(auth, work)
    await auth.registration.create_admin(email=NEWCOMER, password=PASSWORD)
    with pytest.raises(InvalidOneTimeToken):
        await auth.invitations.accept(token, password="another password of mine", client=CLIENT)
    refused = work.audit.rows[-1].event
    assert (refused.action, refused.outcome, refused.reason) == ("registered", "failure", "token_invalid")


async def test_a_deleted_invitation_is_invalid(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Its link is refused, it is gone from the page, and deleting it again is `NotFound`."""
    token = await invited(auth, work)
    (open_,) = (await auth.invitations.page(PageRequest())).items
    await auth.invitations.delete(principal_of(work), open_.id, client=CLIENT)
    with pytest.raises(InvalidOneTimeToken):
        await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
    with pytest.raises(NotFound):
        await auth.invitations.delete(principal_of(work), open_.id, client=CLIENT)
    assert (await auth.invitations.page(PageRequest())).items == []


@pytest.mark.parametrize(
    ("wrong", "is_permanent"),
    [("disabled", False), ("demoted", False), ("erased", True), ("role_changed", False), ("role_deleted", False)],
)
async def test_the_inviter_must_still_be_able_to_give_the_roles(
    auth: Auth, work: MemoryAuthUnitOfWork, wrong: str, is_permanent: bool
) -> None:  # fmt: skip
    """A link is invalid while its inviter cannot give the roles, before the password is looked at."""
    await auth.roles.define(Role("inviter", ("users:write",)))
    await auth.roles.define(Role("guest"))
    admin = account_of(work)
    await auth.registration.create_admin(email="other@example.com", password=PASSWORD)
    await work.users.set_roles(admin.id, ("inviter",))
    token = await invited(auth, work, "guest")
    before = dict(work.users.rows)
    if wrong == "disabled":
        await work.users.set_status(admin.id, UserStatus.DISABLED)
    elif wrong == "demoted":
        await work.users.set_roles(admin.id, ("user",))
    elif wrong == "erased":
        await work.users.erase(admin.id)
    elif wrong == "role_changed":
        await auth.roles.define(Role("guest", ("audit:read",)))
    else:
        await work.roles.delete("guest")
    for password in (PASSWORD, COMMON_PASSWORD):
        with pytest.raises(InvalidOneTimeToken):
            await auth.invitations.accept(token, password=password, client=CLIENT)
    if is_permanent:
        return
    work.users.rows |= before
    await auth.roles.define(Role("guest"))
    await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
    assert account_of(work, NEWCOMER).roles == ("guest",)


async def test_unknown_roles_are_refused(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Nobody is invited to a role that does not exist."""
    with pytest.raises(UnknownRole):
        await invite(auth, work, "user", "ghost")
    assert not work.outbox.tasks


SETS = st.sets(st.sampled_from(PERMISSIONS))


@given(own=SETS, first=SETS, second=SETS, later_own=SETS, later_first=SETS)
@settings(max_examples=100, deadline=None)
async def test_nobody_gives_a_permission_that_they_lack(
    own: set[str], first: set[str], second: set[str], later_own: set[str], later_first: set[str]
) -> None:
    """Whatever the inviter's and the given roles have, now and when the link is used: no permission is gained."""
    clock = FrozenClock()
    work = MemoryAuthUnitOfWork(clock)
    auth = build_fake_auth(work, clock=clock)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await work.users.set_roles(account_of(work).id, ("own",))
    for name, permissions in (("own", own), ("first", first), ("second", second)):
        await auth.roles.define(Role(name, tuple(permissions)))
    if not {"users:write", *first, *second} <= own:
        with pytest.raises(Forbidden):
            await invite(auth, work, "first", "second")
        assert not work.invitations.rows
        assert not await mails(auth, work)
        return
    token = await invited(auth, work, "first", "second")
    await auth.roles.define(Role("own", tuple(later_own)))
    await auth.roles.define(Role("first", tuple(later_first)))
    if not {"users:write", *later_first, *second} <= later_own:
        with pytest.raises(InvalidOneTimeToken):
            await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
        assert len(work.users.rows) == 1
        return
    await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
    gained = set(await auth.roles.permissions_of(account_of(work, NEWCOMER).roles))
    assert gained == later_first | second
    assert gained <= later_own


async def test_registration_by_invitation_alone(
    work: MemoryAuthUnitOfWork, clock: FrozenClock, operations: RecordingOperations
) -> None:
    """In the mode `invite` each registration is refused, before anything is checked; invitations work."""
    auth = build_fake_auth(work, clock=clock, registration_mode="invite", operations=operations)
    for email, password in ((NEWCOMER, PASSWORD), (EMAIL, PASSWORD), ("no address", "short")):
        with pytest.raises(RegistrationClosed):
            await auth.registration.register(email=email, password=password, client=CLIENT)
    assert not work.registrations.rows
    assert not work.outbox.tasks
    assert operations.counts["register", "registration_closed"] == 3
    await auth.invitations.accept(await invited(auth, work), password=PASSWORD, client=CLIENT)
    await auth.login.with_password(email=NEWCOMER, password=PASSWORD, client=CLIENT)
