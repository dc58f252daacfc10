"""Registration and verification, with the in-memory fakes."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from tequipy_auth import (
    AuditAction,
    Auth,
    Client,
    EmailTaken,
    InvalidAddress,
    InvalidCredentials,
    InvalidOneTimeToken,
    OneTimeTokenValue,
    Outcome,
    WeakPassword,
)
from tequipy_auth.domain.policy import REGISTRATION_TTL
from tequipy_auth.testing import COMMON_PASSWORD, MemoryAuthUnitOfWork
from tequipy_platform.testing import AddedTask, FrozenClock

from .accounts import MIXED_CASE_EMAIL, PASSWORD, mailed_tokens


async def test_a_registration_creates_no_account(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Registering stores one registration and one outbox row without an address."""
    await auth.registration.register(email=f" {MIXED_CASE_EMAIL} ", password=PASSWORD, name="Ada", client=Client())
    (registration,) = work.registrations.rows.values()
    assert (registration.email.written, registration.email.canonical) == (MIXED_CASE_EMAIL, "ada@example.com")
    assert work.outbox.tasks == [
        AddedTask("auth.send_mail", {"mail": "verification", "subject_id": str(registration.id)})
    ]
    assert not work.users.rows
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())


async def test_a_known_address_registers_in_the_same_way(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A registration for an address with an account creates the same kinds of rows."""
    await auth.registration.create_admin(email=MIXED_CASE_EMAIL, password=PASSWORD)
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    assert len(work.registrations.rows) == len(work.outbox.tasks) == 1


async def test_the_token_creates_the_account_of_its_registration(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """The account has the password of the registration whose link was opened, not of an earlier one."""
    await auth.registration.register(
        email=MIXED_CASE_EMAIL, password="a stranger's password", name="Mallory", client=Client()
    )
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, name="Ada", client=Client())
    _, token = await mailed_tokens(auth, work)
    await auth.registration.verify_email(token, password=PASSWORD, client=Client())
    (user,) = work.users.rows.values()
    assert (user.name, user.email_verified, user.roles) == ("Ada", True, ("user",))
    assert not work.registrations.rows, "the stranger's registration is forgotten"


async def test_a_token_works_once(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A used token and the tokens of other registrations of the address are invalid afterwards."""
    for _ in range(2):
        await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    tokens = await mailed_tokens(auth, work)
    await auth.registration.verify_email(tokens[0], password=PASSWORD, client=Client())
    for token in tokens:
        with pytest.raises(InvalidOneTimeToken):
            await auth.registration.verify_email(token, client=Client())
    assert len(work.users.rows) == 1


async def test_a_token_expires_after_a_day(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """The link works until just before 24 hours have passed."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    (token,) = await mailed_tokens(auth, work)
    clock.advance(timedelta(hours=24))
    with pytest.raises(InvalidOneTimeToken):
        await auth.registration.verify_email(token, client=Client())


@pytest.mark.parametrize("forge", [lambda _: "", lambda _: "ev1.x.y", lambda token: token.replace("ev1", "rt1")])
async def test_invalid_tokens_get_the_same_answer(
    auth: Auth, work: MemoryAuthUnitOfWork, forge: Callable[[str], str]
) -> None:
    """Malformed, foreign and unknown tokens get the same answer."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    (token,) = await mailed_tokens(auth, work)
    with pytest.raises(InvalidOneTimeToken):
        await auth.registration.verify_email(forge(token), client=Client())


async def test_a_wrong_secret_does_not_use_the_token(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Guessing a token's secret leaves the token valid."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    (token,) = await mailed_tokens(auth, work)
    guess = OneTimeTokenValue.new(OneTimeTokenValue.parse(token).id, bytes(32))
    with pytest.raises(InvalidOneTimeToken):
        await auth.registration.verify_email(str(guess), client=Client())
    await auth.registration.verify_email(token, client=Client())


async def test_an_existing_account_keeps_its_password(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A link that is opened after the account was created in another way is refused."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    (token,) = await mailed_tokens(auth, work)
    registrations = dict(work.registrations.rows)
    await auth.registration.create_admin(email=MIXED_CASE_EMAIL, password="another good password")
    work.registrations.rows.update(registrations)
    users = dict(work.users.rows)
    with pytest.raises(InvalidOneTimeToken):
        await auth.registration.verify_email(token, client=Client())
    assert work.users.rows == users
    assert work.one_time_tokens.rows, "the roll-back took the consumption back"


async def test_parallel_verifications_create_one_account(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Five registrations of one address that are verified at once create one account."""
    for _ in range(5):
        await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    tokens = await mailed_tokens(auth, work)
    answers = await asyncio.gather(
        *(auth.registration.verify_email(token, password=PASSWORD, client=Client()) for token in tokens),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(type(None)) == 1
    assert len(work.users.rows) == 1


@pytest.mark.parametrize(
    ("password", "reasons"),
    [
        ("short", ("too_short",)),
        ("x" * 129, ("too_long",)),
        ("ada.lovelace@example.com", ("matches_email",)),
        ("ADA.LOVELACE", ("matches_email",)),
        ("ａｄａ．ｌｏｖｅｌａｃｅ", ("matches_email",)),  # noqa: RUF001 -- full-width letters, the same in NFKC
    ],
)
async def test_weak_passwords_are_refused_with_reasons(
    auth: Auth, work: MemoryAuthUnitOfWork, password: str, reasons: tuple[str, ...]
) -> None:
    """A refused password leaves no rows."""
    with pytest.raises(WeakPassword) as refusal:
        await auth.registration.register(email="ada.lovelace@example.com", password=password, client=Client())
    assert refusal.value.reasons == reasons
    assert not work.registrations.rows


async def test_the_bounds_of_length_are_inclusive(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """12 and 128 characters are accepted."""
    for length in (12, 128):
        await auth.registration.register(email=MIXED_CASE_EMAIL, password="p" * length, client=Client())
    assert len(work.registrations.rows) == 2


async def test_an_invalid_address_is_refused(auth: Auth) -> None:
    """An invalid address is refused before anything is hashed or stored."""
    with pytest.raises(InvalidAddress):
        await auth.registration.register(email="ada", password=PASSWORD, client=Client())


async def test_an_administrator_is_created_once(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """An administrator's address is verified, and an address with an account is refused."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    await auth.registration.create_admin(email=MIXED_CASE_EMAIL, password=PASSWORD, name="Root")
    (admin,) = work.users.rows.values()
    assert (admin.email_verified, admin.roles, admin.name) == (True, ("admin",), "Root")
    assert not work.registrations.rows
    with pytest.raises(EmailTaken):
        await auth.registration.create_admin(email=MIXED_CASE_EMAIL.upper(), password=PASSWORD)


async def test_no_link_outlives_its_registration(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """A link that is mailed late expires with its registration."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    work.outbox.tasks.clear()
    clock.advance(REGISTRATION_TTL - timedelta(hours=1))
    await auth.registration.resend_verification(email=MIXED_CASE_EMAIL)
    (token,) = await mailed_tokens(auth, work)
    (kept,), (registration,) = work.one_time_tokens.rows.values(), work.registrations.rows.values()
    assert kept.expires_at == registration.expires_at
    clock.advance(timedelta(hours=1))
    with pytest.raises(InvalidOneTimeToken):
        await auth.registration.verify_email(token, client=Client())
    assert not work.users.rows


async def test_another_link_can_be_requested(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """A pending registration gets a new link, and the mail contains the time of the registration."""
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())
    work.outbox.tasks.clear()
    await auth.registration.resend_verification(email=MIXED_CASE_EMAIL.upper())
    (token,) = await mailed_tokens(auth, work)
    await auth.registration.verify_email(token, client=Client())
    await auth.login.with_password(email=MIXED_CASE_EMAIL, password=PASSWORD, client=Client())


async def test_a_link_request_creates_the_same_row_for_every_address(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Pending, known and unknown addresses create the same outbox row; only the pending one gets a mail."""
    await auth.registration.create_admin(email="known@example.com", password=PASSWORD)
    await auth.registration.register(email="waiting@example.com", password=PASSWORD, client=Client())
    work.outbox.tasks.clear()
    for name in ("waiting", "known", "unknown"):
        await auth.registration.resend_verification(email=f"{name}@example.com")
    assert [(added.task, added.payload["mail"]) for added in work.outbox.tasks] == [
        ("auth.send_mail", "verification_again")
    ] * 3
    assert len(await mailed_tokens(auth, work)) == 1
    with pytest.raises(InvalidAddress):
        await auth.registration.resend_verification(email="nobody")


async def test_registration_and_verification_are_audited(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Registrations and verifications, also failed ones, are audited with the pseudonym of the address."""
    client = Client("192.0.2.1", "test")
    await auth.registration.register(email=MIXED_CASE_EMAIL, password=PASSWORD, client=client)
    (token,) = await mailed_tokens(auth, work)
    await auth.registration.verify_email(token, client=client)
    with pytest.raises(InvalidOneTimeToken):
        await auth.registration.verify_email(token, client=client)
    (user,) = work.users.rows.values()
    assert [(event.action, event.outcome, event.reason, event.subject_id) for event in work.audit.events] == [
        (AuditAction.REGISTERED, Outcome.SUCCESS, None, None),
        (AuditAction.VERIFIED, Outcome.SUCCESS, None, user.id),
        (AuditAction.VERIFIED, Outcome.FAILURE, "token_invalid", None),
    ]
    assert {event.client for event in work.audit.events} == {client}
    assert "example.com" not in repr(work.audit.rows)


async def test_a_common_password_is_refused(auth: Auth) -> None:
    """Every registration checks the list of common passwords."""
    with pytest.raises(WeakPassword) as refusal:
        await auth.registration.register(email=MIXED_CASE_EMAIL, password=COMMON_PASSWORD.upper(), client=Client())
    assert refusal.value.reasons == ("common",)
