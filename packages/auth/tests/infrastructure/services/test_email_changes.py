"""Changes of address on PostgreSQL, with real concurrency."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

from sqlalchemy import text

from tequipy_auth import Auth, EmailAddress, Principal, Purpose
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_platform import DomainError, Mail, SystemClock
from tequipy_platform.database import Database, uuid7

from .processes import CLIENT, PASSWORD, make_auth, sent_mails

ROUNDS = 10
NOW = datetime.now(UTC)


async def make_principal(auth: Auth, email: str) -> Principal:
    await auth.registration.create_admin(email=email, password=PASSWORD)
    pair = await auth.login.with_password(email=email, password=PASSWORD, client=CLIENT)
    return await auth.access_tokens.verify(pair.access.value)


async def request(auth: Auth, database: Database, principal: Principal, email: str) -> tuple[str, str]:
    """Request a change and return the tokens of the links that confirm and undo it."""
    await auth.email_changes.request(principal, new_email=email, client=CLIENT)
    mails = await sent_mails(auth, database)
    return token(mails, "confirm-email"), token(mails, "undo-email")


def token(mails: list[Mail], purpose: str) -> str:
    (found,) = [mail.text for mail in mails if f"/{purpose}#token=" in mail.text]
    return found.partition("#token=")[2].split()[0]


async def address(auth: Auth, principal: Principal) -> str:
    return (await auth.administration.user(principal.user_id)).email.written


async def outcomes(*calls: object) -> list[str]:
    """Run the calls at once, and return `ok` or the error's code for each."""
    answers = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, DomainError):
            raise answer
    return [answer.code if isinstance(answer, DomainError) else "ok" for answer in answers]


async def test_one_of_two_confirmations_succeeds(auth: Auth, database: Database) -> None:
    """Two links of one account that are opened at once change the address once, and two accounts never share one."""
    counts: Counter[str] = Counter()
    for number in range(ROUNDS):
        first = await make_principal(auth, f"first{number}@example.com")
        second = await make_principal(auth, f"second{number}@example.com")
        one, _ = await request(auth, database, first, f"one{number}@example.com")
        other, _ = await request(auth, database, first, f"other{number}@example.com")
        rival, _ = await request(auth, database, second, f"one{number}@example.com")
        answers = await outcomes(*(auth.email_changes.confirm(each, client=CLIENT) for each in (one, other, rival)))
        assert answers[:2].count("ok") == 1, answers
        assert set(answers) <= {"ok", "token_invalid"}
        counts[" ".join(answers)] += 1
        assert await address(auth, first) != await address(auth, second)
    print(f"\n{ROUNDS} rounds, answers to (one address, another one, the same address for another account): {counts}")


async def test_a_confirmation_and_an_undo_at_once(auth: Auth, database: Database) -> None:
    """Whatever comes first: afterwards the account has its old address, and no link works any more."""
    counts: Counter[str] = Counter()
    for number in range(ROUNDS):
        principal = await make_principal(auth, f"ada{number}@example.com")
        confirm, undo = await request(auth, database, principal, f"new{number}@example.com")
        answers = await outcomes(
            auth.email_changes.confirm(confirm, client=CLIENT), auth.email_changes.undo(undo, client=CLIENT)
        )
        assert answers in (["ok", "ok"], ["token_invalid", "ok"])
        counts[" ".join(answers)] += 1
        assert await address(auth, principal) == f"ada{number}@example.com"
        assert await outcomes(
            auth.email_changes.confirm(confirm, client=CLIENT), auth.email_changes.undo(undo, client=CLIENT)
        ) == ["token_invalid", "token_invalid"]
    print(f"\n{ROUNDS} rounds, answers to confirm and undo: {counts}")


async def test_a_registration_at_the_same_time(auth: Auth, database: Database) -> None:
    """Of a confirmation and a registration of the same address one succeeds; the other one gets `token_invalid`."""
    counts: Counter[str] = Counter()
    for number in range(ROUNDS):
        email = f"new{number}@example.com"
        principal = await make_principal(auth, f"ada{number}@example.com")
        confirm, _ = await request(auth, database, principal, email)
        await auth.registration.register(email=email, password=PASSWORD, client=CLIENT)
        verify = token(await sent_mails(auth, database), "verify-email")
        answers = await outcomes(
            auth.email_changes.confirm(confirm, client=CLIENT), auth.registration.verify_email(verify, client=CLIENT)
        )
        assert sorted(answers) == ["ok", "token_invalid"], answers
        counts[" ".join(answers)] += 1
    print(f"\n{ROUNDS} rounds, answers to confirm and verify: {counts}")


async def test_a_thief_cannot_occupy_the_old_address(database: Database) -> None:
    """With open registration too, nobody gets the old address in the moment of the change, and the undo restores it."""
    async with make_auth(database, registration_mode="open") as auth:
        for number in range(ROUNDS):
            email = f"ada{number}@example.com"
            principal = await make_principal(auth, email)
            confirm, undo = await request(auth, database, principal, f"thief{number}@example.com")
            taking = [auth.registration.register(email=email, password=PASSWORD, client=CLIENT) for _ in range(5)]
            answers = await outcomes(auth.email_changes.confirm(confirm, client=CLIENT), *taking)
            assert answers == ["ok", *["email_taken"] * 5]
            await auth.email_changes.undo(undo, client=CLIENT)
            assert await address(auth, principal) == email


async def test_a_link_is_never_mailed_to_an_address_of_the_past(auth: Auth, database: Database) -> None:
    """A mail with a link to a new password that is written during an undo waits for it, and goes to the old address.

    Otherwise a thief who asks for it at the right moment would get a link that the undo does not invalidate.
    """
    principal = await make_principal(auth, "ada@example.com")
    confirm, _ = await request(auth, database, principal, "thief@example.com")
    await auth.email_changes.confirm(confirm, client=CLIENT)
    await auth.passwords.forgot(email="thief@example.com", client=CLIENT)
    async with SqlAuthUnitOfWork(database, SystemClock(), uuid7) as undo:
        await undo.users.lock(principal.user_id)
        sending = asyncio.create_task(sent_mails(auth, database))
        await done_or_waiting(sending, database)
        await undo.users.set_email(principal.user_id, EmailAddress("ada@example.com", "ada@example.com"), at=NOW)
        await undo.one_time_tokens.discard(principal.user_id, Purpose.RESET_PASSWORD)
    links = {mail.to: mail.text for mail in await sending if "/reset-password#token=" in mail.text}
    assert links.keys() == {"ada@example.com"}


async def done_or_waiting(task: asyncio.Task[object], database: Database) -> None:
    """Return when the task has ended or waits for a lock."""
    waiting = text(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    )
    async with asyncio.timeout(30), database.engine.connect() as connection:
        # Within a transaction PostgreSQL shows the same activity again.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while not task.done() and not await connection.scalar(waiting):
            await asyncio.sleep(0.01)
