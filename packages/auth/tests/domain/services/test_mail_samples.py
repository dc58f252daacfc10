"""The sample values of auth's mail templates."""

from tequipy_auth import Auth, Client, Principal
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.mail import JinjaMailTemplates

from .accounts import CLIENT, EMAIL, PASSWORD, mails

STRANGER = "stranger@example.com"


async def test_the_samples_have_the_values_of_every_mail(auth: Auth, work: MemoryAuthUnitOfWork) -> None:
    """Each template gets exactly the values that its sample has, so that a preview shows what will be sent."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    await auth.registration.register(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.passwords.forgot(email=EMAIL, client=CLIENT)
    for _ in range(2):
        await auth.registration.register(email=STRANGER, password=PASSWORD, client=CLIENT)
    await auth.registration.resend_verification(email=STRANGER)
    (account,) = work.users.rows.values()
    for kind in ("password_changed", "session_stolen"):
        work.outbox.add("auth.send_mail", mail=kind, subject_id=str(account.id))
    await auth.registration.create_admin(email="leaving@example.com", password=PASSWORD)
    pair = await auth.login.with_password(email="leaving@example.com", password=PASSWORD, client=CLIENT)
    await auth.deletion.request(await auth.access_tokens.verify(pair.access.value), password=PASSWORD, client=CLIENT)
    admin = Principal(account.id, account.id, account.roles, account.version, account.created_at, ("pwd",))
    for email in (EMAIL, "guest@example.com"):
        await auth.invitations.invite(admin, email=email, roles=["user"], client=CLIENT)
    for email in ("new@example.com", EMAIL):
        await auth.registration.create_admin(email=f"changing-to-{email}", password=PASSWORD)
        pair = await auth.login.with_password(email=f"changing-to-{email}", password=PASSWORD, client=CLIENT)
        principal = await auth.access_tokens.verify(pair.access.value)
        await auth.email_changes.request(principal, new_email=email, client=CLIENT)
    work.outbox.add("auth.send_mail", mail="email_change_undone", subject_id=str(account.id))
    for device in ("first", "second"):
        await auth.login.with_password(email=EMAIL, password=PASSWORD, client=Client("192.0.2.1", device))
    work.outbox.add("auth.send_mail", mail="session_ended", subject_id=str(account.id))
    # The fake templates render the template's name, and one line for each value.
    sent = {
        mail.subject: {line.partition(":")[0] for line in mail.text.splitlines()} for mail in await mails(auth, work)
    }
    samples = JinjaMailTemplates("tequipy_auth").samples()
    assert sent == {name: set(values) for name, values in samples.items()}
