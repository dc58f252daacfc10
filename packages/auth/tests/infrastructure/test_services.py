"""The services on PostgreSQL and bcrypt, with real concurrency."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from secrets import token_bytes
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from tequipy_auth import (
    CACHE_POLICIES,
    AuditAction,
    Auth,
    Client,
    EmailNotVerified,
    InvalidCredentials,
    InvalidOneTimeToken,
    LoginLocked,
    PasswordRequired,
    RefreshReused,
    SessionRevoked,
)
from tequipy_auth.domain.devices import DeviceMarks
from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_auth.infrastructure.hashing import check_digest_padded
from tequipy_auth.infrastructure.models import (
    AuditEventRow,
    Base,
    LoginAttemptRow,
    OneTimeTokenRow,
    RefreshTokenRow,
    RegistrationRow,
    SessionRow,
    UserRow,
)
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.testing import MemoryCacheManager
from tequipy_platform import Delivery, Mail, SystemClock
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging.models import OutboxRow
from tequipy_platform.testing import RecordingMailer

PASSWORD = "correct horse battery staple"
EMAIL = "Ada@Example.com"
CLIENT = Client("2001:db8::1", "test")


def make_auth(database: Database, **changed: Any) -> Auth:
    settings = AuthSettings.model_validate({"bcrypt_cost": 4, "hashing_queue": 100} | changed)
    return build_auth(
        settings,
        environment="test",
        public_url="https://app.example.com/",
        database=database,
        cache=MemoryCacheManager(CACHE_POLICIES),
    )


@pytest.fixture
async def auth(database: Database) -> AsyncIterator[Auth]:
    async with make_auth(database) as auth:
        yield auth


async def sent_mails(auth: Auth, database: Database) -> list[Mail]:
    """Run the tasks of the outbox and return the newly sent mails."""
    mailer = RecordingMailer()
    async with database.sessions() as session:
        rows = list(await session.scalars(select(OutboxRow).where(OutboxRow.task == "auth.send_mail")))
    for row in rows:
        await auth.mailing(mailer).send_mail(Delivery(row.id, "auth.send_mail"), **row.payload)
    return mailer.mails


async def mailed_tokens(auth: Auth, database: Database) -> list[str]:
    """Run the tasks of the outbox and return the tokens of the links."""
    return [mail.text.partition("#token=")[2].split()[0] for mail in await sent_mails(auth, database)]


async def test_register_verify_log_in_refresh_and_log_out(auth: Auth, database: Database) -> None:
    """A user can register, verify the address, log in, refresh, see the profile and log out."""
    await auth.registration.register(email=EMAIL, password=PASSWORD, name="Ada", client=CLIENT)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    await auth.registration.verify_email(token, client=CLIENT)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    pair = await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    principal = await auth.access_tokens.verify(pair.access.value)
    assert (await auth.accounts.profile(principal.user_id)).email == EMAIL
    await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(pair.refresh), client=CLIENT)


async def test_parallel_verifications_create_one_account(auth: Auth, database: Database) -> None:
    """Five registrations of one address that are verified at once create one account."""
    await asyncio.gather(*(auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT) for _ in range(5)))
    tokens = await mailed_tokens(auth, database)
    assert len(set(tokens)) == 5
    answers = await asyncio.gather(
        *(auth.registration.verify_email(token, password=PASSWORD, client=CLIENT) for token in tokens),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if answer is not None]
    assert len(refused) == 4
    assert {type(answer) for answer in refused} == {InvalidOneTimeToken}
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(UserRow)) == 1


async def test_a_registration_and_a_verification_are_serialised(auth: Auth, database: Database) -> None:
    """A link that is opened during another registration is refused or creates the account of its registration."""
    outcomes = []
    for number in range(20):
        email = f"ada{number}@example.com"
        await auth.registration.register(email=email, password=PASSWORD, client=CLIENT)
        (mail,) = [mail for mail in await sent_mails(auth, database) if mail.to == email]
        token = mail.text.partition("#token=")[2].split()[0]
        answer, _ = await asyncio.gather(
            auth.registration.verify_email(token, client=CLIENT),
            auth.registration.register(email=email, password="a stranger's password", client=CLIENT),
            return_exceptions=True,
        )
        async with database.sessions() as session:
            accounts = list(await session.scalars(select(UserRow).where(UserRow.email == email)))
            pending = list(await session.scalars(select(RegistrationRow).where(RegistrationRow.email == email)))
        outcomes.append((type(answer), len(accounts), len(pending)))
        if accounts:
            await auth.login.with_password(email=email, password=PASSWORD, client=CLIENT)
    assert set(outcomes) <= {(PasswordRequired, 0, 2), (type(None), 1, 1)}, outcomes


async def test_parallel_refreshes_are_one_rotation(auth: Auth, database: Database) -> None:
    """20 refreshes of one token in two processes return the same successor, which then works."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    async with make_auth(database) as other:
        services = [auth.sessions, other.sessions] * 10
        pairs = await asyncio.gather(*(service.refresh(str(pair.refresh), client=CLIENT) for service in services))
    assert len({str(each.refresh) for each in pairs}) == 1
    async with database.sessions() as session:
        assert await session.scalar(select(func.count()).select_from(RefreshTokenRow)) == 2
    await auth.sessions.refresh(str(pairs[0].refresh), client=CLIENT)


async def test_a_replay_from_elsewhere_is_audited(auth: Auth, database: Database) -> None:
    """The client of the first refresh is stored across processes, and a replay by another client is audited."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    async with make_auth(database) as other:
        await other.sessions.refresh(str(pair.refresh), client=CLIENT)
        await other.sessions.refresh(str(pair.refresh), client=Client("198.51.100.7", "curl"))
    async with database.sessions() as session:
        rows = list(
            await session.scalars(select(AuditEventRow).where(AuditEventRow.action == AuditAction.REFRESH_REPLAYED))
        )
    shown = [(row.ip, row.user_agent, row.outcome, row.details) for row in rows]
    assert shown == [("198.51.100.7", "curl", "success", {"changed": ["client_address", "user_agent"]})]


async def test_theft_ends_the_session_for_good(database: Database) -> None:
    """A used token after the grace period revokes the session, and the revocation is committed."""
    async with make_auth(database, policy={"refresh_grace": 0}) as auth:
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
        pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
        second = await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
        with pytest.raises(RefreshReused):
            await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
        with pytest.raises(SessionRevoked):
            await auth.sessions.refresh(str(second.refresh), client=CLIENT)


async def test_a_secret_never_reaches_the_database(auth: Auth, database: Database) -> None:
    """No table contains a password, a refresh secret or a one-time secret."""
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    await auth.registration.verify_email(token, client=CLIENT)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email="bob@example.com", password=PASSWORD, client=CLIENT)
    async with database.engine.connect() as connection:
        tables = {"outbox": str((await connection.execute(select(OutboxRow.__table__))).all())}
        for table in Base.metadata.sorted_tables:
            tables[table.name] = str((await connection.execute(select(table))).all())
    assert all("example.com" not in tables[name] for name in ("login_attempts", "audit_events", "outbox"))
    dump = "".join(tables.values())
    assert EMAIL in dump, "the dump shows what is there"
    for secret in (PASSWORD, pair.refresh.secret, token.rpartition(".")[2]):
        assert secret not in dump


async def test_parallel_open_registrations_create_one_account(database: Database) -> None:
    """One of 20 concurrent open registrations of one address succeeds, the others are refused."""
    async with make_auth(database, registration_mode="open") as auth:
        answers = await asyncio.gather(
            *(auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT) for _ in range(20)),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["EmailTaken"] * 19 + ["User"]
        with pytest.raises(EmailNotVerified):
            await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
        (token,) = await mailed_tokens(auth, database)
        await auth.registration.verify_email(token, client=CLIENT)
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
async def test_at_most_five_parallel_guesses_are_checked(
    database: Database, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 50 parallel wrong logins in two processes, five are checked and 45 are locked out."""
    looked_at: list[str] = []

    def check(material: bytes, digest: str, cost: int) -> bool:
        looked_at.append(digest)
        return check_digest_padded(material, digest, cost)

    monkeypatch.setattr("tequipy_auth.infrastructure.passwords.check_digest_padded", check)
    async with make_auth(database) as auth, make_auth(database) as other:
        await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
        for process in (auth, other):  # load the keys first: behind 50 attempts this could exceed the timeout of a load
            await process.access_tokens.check()
        answers = await asyncio.gather(
            *(
                process.login.with_password(email=email, password="wrong", client=CLIENT)
                for process in [auth, other] * 25
            ),
            return_exceptions=True,
        )
    assert Counter(type(answer) for answer in answers) == {InvalidCredentials: 5, LoginLocked: 45}
    assert len(looked_at) == 5


async def test_parallel_successful_logins_leave_no_failure(auth: Auth, database: Database) -> None:
    """After parallel logins from many clients the counters of the account contain no failure."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await asyncio.gather(
        *(
            auth.login.with_password(email=EMAIL, password=PASSWORD, client=Client(f"192.0.2.{number}"))
            for number in range(15)
        )
    )
    async with database.sessions() as session:
        rows = list(await session.scalars(select(LoginAttemptRow)))
    assert [(row.failed_at, row.reserved_at, row.locks) for row in rows if row.account] == [((), (), 0)]


async def test_parallel_logins_leave_ten_devices(auth: Auth, database: Database) -> None:
    """After 15 parallel logins of new devices in two processes ten marks are valid, until a reset."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    places = [Client(f"192.0.2.{number}") for number in range(15)]
    async with make_auth(database) as other:
        logins = ([auth, other][number % 2].login for number in range(15))
        pairs = await asyncio.gather(
            *(
                login.with_password(email=EMAIL, password=PASSWORD, client=place)
                for login, place in zip(logins, places, strict=True)
            )
        )
    marks = DeviceMarks(
        Pseudonyms(AuthSettings().pseudonym_key.get_secret_value().encode()), SystemClock(), token_bytes
    )

    async def valid() -> int:
        async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as work:
            user = await work.users.by_email(EMAIL.casefold())
            assert user is not None
            return sum([await marks.recognise(work, user, pair.device_mark) is not None for pair in pairs])

    assert await valid() == 10
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    await auth.passwords.reset(token, new_password=PASSWORD * 2, client=CLIENT)
    assert await valid() == 0


async def test_a_lock_outlives_every_process(database: Database) -> None:
    """A process that has just started knows the lock from PostgreSQL."""
    async with make_auth(database) as auth:
        for _ in range(5):
            with pytest.raises(InvalidCredentials):
                await auth.login.with_password(email=EMAIL, password="wrong", client=CLIENT)
    async with make_auth(database) as auth:
        with pytest.raises(LoginLocked):
            await auth.login.with_password(email=EMAIL, password="wrong", client=CLIENT)


async def test_an_outdated_hash_is_renewed_at_login(auth: Auth, database: Database) -> None:
    """After a change of cost and pepper the first login stores a hash with the new parameters."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    peppers = {1: AuthSettings().peppers[1], 2: SecretStr("a new pepper of thirty-two letters")}
    async with make_auth(database, bcrypt_cost=5, peppers=peppers) as newer:
        await newer.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    async with database.sessions() as session:
        (user,) = await session.scalars(select(UserRow))
    assert (user.password_scheme, user.password_cost, user.password_pepper_version) == ("bcrypt-hmac-sha256", 5, 2)
    assert user.password_digest.startswith("$2b$05$")


async def test_parallel_logins_with_an_outdated_hash_all_succeed(auth: Auth, database: Database) -> None:
    """Parallel logins after a change of cost all succeed and leave no failure."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    async with make_auth(database, bcrypt_cost=5) as newer:
        logins = (newer.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT) for _ in range(4))
        await asyncio.gather(*logins)
    async with database.sessions() as session:
        rows = list(await session.scalars(select(LoginAttemptRow)))
    assert {(row.failed_at, row.reserved_at) for row in rows} == {((), ())}


async def test_purging_keeps_live_rows(auth: Auth, database: Database) -> None:
    """A purge keeps the rows of a recent registration, login and failure."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.register(email="bob@example.com", password=PASSWORD, client=CLIENT)
    await mailed_tokens(auth, database)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.housekeeping.purge(Delivery(uuid7(), "auth.purge"))
    await auth.sessions.refresh(str(pair.refresh), client=CLIENT)
    async with database.sessions() as session:
        for table in (RegistrationRow, OneTimeTokenRow):
            assert await session.scalar(select(func.count()).select_from(table)) == 1


async def test_one_of_several_parallel_resets_succeeds(auth: Auth, database: Database) -> None:
    """20 parallel uses of one link set one password, which works; earlier sessions end."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    (token,) = await mailed_tokens(auth, database)
    passwords = [f"an even better password {number}" for number in range(20)]
    answers = await asyncio.gather(
        *(auth.passwords.reset(token, new_password=password, client=CLIENT) for password in passwords),
        return_exceptions=True,
    )
    ((winner, _),) = [(password, answer) for password, answer in zip(passwords, answers, strict=True) if not answer]
    assert {type(answer) for answer in answers if answer} == {InvalidOneTimeToken}
    await auth.login.with_password(email=EMAIL, password=winner, client=CLIENT)
    with pytest.raises(SessionRevoked):
        await auth.sessions.refresh(str(pair.refresh), client=CLIENT)


async def test_a_login_and_a_change_at_once_leave_no_session_of_the_old_password(
    auth: Auth, database: Database
) -> None:
    """A login during a password change starts no session that survives the change."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    own = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    principal = await auth.access_tokens.verify(own.access.value)
    await asyncio.gather(
        auth.passwords.change(principal, current_password=PASSWORD, new_password=PASSWORD * 2, client=CLIENT),
        *(
            auth.login.with_password(email=EMAIL, password=PASSWORD, client=Client(f"192.0.2.{number}"))
            for number in range(10)
        ),
        return_exceptions=True,
    )
    async with database.sessions() as session:
        live = list(await session.scalars(select(SessionRow.id).where(SessionRow.revoked_at.is_(None))))
    assert live == [principal.session_id]


async def test_every_mail_template_can_be_rendered(auth: Auth, database: Database) -> None:
    """Each kind of mail has a template that needs no other values and contains the right words."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.registration.register(email="bob@example.com", password=PASSWORD, client=CLIENT)
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    for _ in range(2):
        await auth.registration.register(email="eve@example.com", password=PASSWORD, client=CLIENT)
    await auth.registration.resend_verification(email="eve@example.com")
    async with database.sessions() as session:
        (user,) = await session.scalars(select(UserRow))
    async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as work:
        for kind in ("password_changed", "session_stolen"):
            work.outbox.add("auth.send_mail", mail=kind, subject_id=str(user.id))
    mails = {mail.subject: mail for mail in await sent_mails(auth, database)}
    assert mails.keys() == {
        "You already have an account",
        "Verify your e-mail address",
        "Register again to verify your e-mail address",
        "Reset your password",
        "Your password was changed",
        "A session of yours was ended for your safety",
    }
    assert "https://app.example.com/reset-password#token=ev1." in mails["Reset your password"].text
    assert "UTC" in mails["Verify your e-mail address"].text
    assert all(max(map(len, mail.text.splitlines())) <= 120 for mail in mails.values())
    assert await sent_mails(auth, database) == [], "each is sent once"
