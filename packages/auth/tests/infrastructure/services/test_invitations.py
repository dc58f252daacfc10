"""Invitations on PostgreSQL, with concurrent requests."""

import asyncio
from collections import Counter

from sqlalchemy import func, select, update

from tequipy_auth import AuditFilter, Auth, InvalidOneTimeToken, Principal, UserFilter
from tequipy_auth.infrastructure.models import InvitationRow, UserRow
from tequipy_platform import Delivery, IdempotencyKeyInUse, IdempotentRequest, PageRequest
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging.models import OutboxRow
from tequipy_platform.testing import EPOCH

from .processes import CLIENT, PASSWORD, mailed_tokens, make_auth

NEWCOMER = "grace@example.com"
REQUEST = IdempotentRequest("POST /users/invitations", "a key", b"digest")


async def administrator(auth: Auth) -> Principal:
    await auth.registration.create_admin(email="admin@example.com", password=PASSWORD)
    (user,) = (await auth.administration.users(PageRequest(), UserFilter())).items
    return Principal(user.id, user.id, user.roles, user.version, EPOCH, ("pwd",))


async def test_parallel_requests_with_a_key_invite_once(auth: Auth, database: Database) -> None:
    """Of 20 parallel requests at two processes, and a later one, one adds a mail; the others get 202 or 409."""
    admin = await administrator(auth)
    async with make_auth(database) as other:
        outcomes = await asyncio.gather(
            *(
                process.invitations.invite(admin, email=NEWCOMER, roles=["user"], client=CLIENT, request=REQUEST)
                for process in (auth, other) * 10
            ),
            return_exceptions=True,
        )
    await auth.invitations.invite(admin, email=NEWCOMER, roles=["user"], client=CLIENT, request=REQUEST)
    kinds = Counter(type(outcome) for outcome in outcomes)
    print(f"\n20 parallel requests: {kinds}")
    assert kinds[type(None)] >= 1
    assert set(kinds) <= {type(None), IdempotencyKeyInUse}
    async with database.sessions() as session:
        mails = select(func.count()).select_from(OutboxRow).where(OutboxRow.task == "auth.send_mail")
        assert await session.scalar(mails) == 1
        assert await session.scalar(select(func.count()).select_from(InvitationRow)) == 1


async def test_parallel_invitations_of_one_address_leave_one(auth: Auth, database: Database) -> None:
    """Of 20 parallel invitations without a key the last one stays, and only its link creates an account."""
    admin = await administrator(auth)
    await asyncio.gather(
        *(
            auth.invitations.invite(admin, email=NEWCOMER, roles=[role], client=CLIENT)
            for role in ("user", "support") * 10
        )
    )
    (invitation,) = (await auth.invitations.page(PageRequest())).items
    (token,) = await mailed_tokens(auth, database)
    await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
    (user, _) = (await auth.administration.users(PageRequest(), UserFilter())).items
    assert user.roles == invitation.roles


async def test_parallel_acceptances_create_one_account(auth: Auth, database: Database) -> None:
    """One of 20 parallel acceptances of a link creates the account, the others are refused."""
    admin = await administrator(auth)
    await auth.invitations.invite(admin, email=NEWCOMER, roles=["user"], client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    outcomes = await asyncio.gather(
        *(auth.invitations.accept(token, password=PASSWORD, client=CLIENT) for _ in range(20)), return_exceptions=True
    )
    assert Counter(type(outcome) for outcome in outcomes) == {type(None): 1, InvalidOneTimeToken: 19}
    await auth.login.with_password(email=NEWCOMER, password=PASSWORD, client=CLIENT)


async def test_an_acceptance_and_a_registration_create_one_account(auth: Auth, database: Database) -> None:
    """An invitation and a registration of one address that are used at once give one account, and no error."""
    admin = await administrator(auth)
    created: Counter[str] = Counter()
    for number in range(10):
        email = f"p{number}@example.com"
        await auth.invitations.invite(admin, email=email, roles=["support"], client=CLIENT)
        (invited,) = await mailed_tokens(auth, database)
        await auth.registration.register(email=email, password=PASSWORD, client=CLIENT)
        (registered,) = await mailed_tokens(auth, database)
        outcomes = await asyncio.gather(
            auth.invitations.accept(invited, password=PASSWORD, client=CLIENT),
            auth.registration.verify_email(registered, client=CLIENT),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [InvalidOneTimeToken]
        async with database.sessions() as session:
            (roles,) = await session.scalars(select(UserRow.roles).where(UserRow.email == email))
        created["invitation" if outcomes[0] is None else "registration"] += 1
        assert roles == (("support",) if outcomes[0] is None else ("user",))
    print(f"\n10 rounds, created by: {dict(created)}")


async def test_a_demoted_inviter_gives_nothing(auth: Auth, database: Database) -> None:
    """An inviter is demoted while the link is used: the account has been created before that, or never is."""
    admin = await administrator(auth)
    await auth.registration.create_admin(email="other@example.com", password=PASSWORD)
    other = (await auth.administration.users(PageRequest(), UserFilter("other@"))).items[0]
    demoting = Principal(other.id, other.id, other.roles, other.version, EPOCH, ("pwd",))
    outcomes: Counter[str] = Counter()

    async def accept(token: str) -> bool:
        try:
            await auth.invitations.accept(token, password=PASSWORD, client=CLIENT)
        except InvalidOneTimeToken:
            return False
        return True

    async def demote(wait: float) -> None:
        await asyncio.sleep(wait)  # so that each of the two is the first one sometimes
        await auth.administration.set_roles(demoting, admin.user_id, ["user"], client=CLIENT)

    for number in range(20):
        await auth.invitations.invite(admin, email=f"p{number}@example.com", roles=["admin"], client=CLIENT)
        (token,) = await mailed_tokens(auth, database)
        accepted, _ = await asyncio.gather(accept(token), demote(number / 500))
        outcomes["accepted" if accepted else "refused"] += 1
        events = (await auth.audit_log.page(PageRequest(limit=2), AuditFilter())).items
        if accepted:
            assert [record.event.action for record in events] == ["role_changed", "registered"], "the newest first"
        async with database.sessions.begin() as session:
            await session.execute(update(UserRow).where(UserRow.id == admin.user_id).values(roles=("admin",)))
    print(f"\n20 rounds: {dict(outcomes)}")


async def test_an_invitation_ends_with_its_inviter(auth: Auth, database: Database) -> None:
    """When the inviter's account is deleted, the database deletes the invitation too."""
    admin = await administrator(auth)
    await auth.invitations.invite(admin, email=NEWCOMER, roles=["user"], client=CLIENT)
    async with database.sessions.begin() as session:
        await session.delete(await session.get_one(UserRow, admin.user_id))
    assert (await auth.invitations.page(PageRequest())).items == []
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(InvitationRow)) == 0


async def test_an_erased_account_leaves_no_invitation(database: Database) -> None:
    """An account that was invited sees the invitation in its export; after the erasure no row has the address."""
    async with make_auth(database, policy={"erasure_delay": 0}) as auth:
        admin = await administrator(auth)
        await auth.registration.create_admin(email=NEWCOMER, password=PASSWORD)
        await auth.invitations.invite(admin, email=NEWCOMER, roles=["user"], client=CLIENT)
        pair = await auth.login.with_password(email=NEWCOMER, password=PASSWORD, client=CLIENT)
        newcomer = await auth.access_tokens.verify(pair.access.value)
        exported = (await auth.exports.export(newcomer))["invitations"]
        assert NEWCOMER in str(exported)
        await auth.deletion.request(newcomer, password=PASSWORD, client=CLIENT)
        await auth.deletion.erase_due(Delivery(uuid7(), "auth.erase_accounts"))
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(InvitationRow)) == 0
