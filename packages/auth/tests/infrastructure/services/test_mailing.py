"""The mails that are rendered from the real templates."""

from sqlalchemy import select

from tequipy_auth import Auth
from tequipy_auth.infrastructure.models import UserRow
from tequipy_auth.infrastructure.repositories import SqlAuthUnitOfWork
from tequipy_platform import SystemClock
from tequipy_platform.database import Database, uuid7

from .processes import CLIENT, EMAIL, PASSWORD, sent_mails


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
        for kind in ("password_changed", "session_stolen", "email_change_undone", "session_ended"):
            work.outbox.add("auth.send_mail", mail=kind, subject_id=str(user.id))
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    principal = await auth.access_tokens.verify(pair.access.value)
    await auth.registration.create_admin(email="taken@example.com", password=PASSWORD)
    for email in ("new@example.com", "taken@example.com"):
        await auth.email_changes.request(principal, new_email=email, client=CLIENT)
    mails = {mail.subject: mail for mail in await sent_mails(auth, database)}
    assert mails.keys() == {
        "You already have an account",
        "Verify your e-mail address",
        "Register again to verify your e-mail address",
        "Reset your password",
        "Your password was changed",
        "A session of yours was ended for your safety",
        "New sign-in to your account",
        "A session of yours was ended: choose a new password",
        "Confirm your new e-mail address",
        "The e-mail address of your account is being changed",
        "This address has an account already",
        "The e-mail address of your account was restored",
    }
    assert "https://app.example.com/reset-password#token=ev1." in mails["Reset your password"].text
    assert "UTC" in mails["Verify your e-mail address"].text
    assert all(max(map(len, mail.text.splitlines())) <= 120 for mail in mails.values())
    assert await sent_mails(auth, database) == [], "each is sent once"
