"""The background work of auth."""

from datetime import timedelta

from tequipy_auth.domain.auth import Auth
from tequipy_platform import Mailer, MailRejected, RetryPolicy, Task


def auth_tasks(auth: Auth, mailer: Mailer) -> tuple[Task, ...]:
    """Return auth's tasks, their mails handed to `mailer`."""
    return (
        Task(
            "auth.send_mail",
            auth.mailing(mailer).send_mail,
            queue="email",
            time_limit=timedelta(seconds=30),
            # A day without a mail server, or with one that refuses us, costs no mail (RFC 5321, section 4.5.4.1, has
            # servers try for longer still). Greylisting is over after some minutes.
            retry=RetryPolicy(
                attempts=20, cap=timedelta(minutes=10), permanent=(MailRejected,), lifetime=timedelta(hours=24)
            ),
        ),
        Task("auth.publish_revocations", auth.session_ender.publish_again, time_limit=timedelta(seconds=30)),
        Task(
            "auth.purge",
            auth.housekeeping.purge,
            every=timedelta(hours=1),
            time_limit=timedelta(seconds=30),  # what is left over waits for the next hour
        ),
        Task("auth.drop_profile", auth.accounts.drop_profile, time_limit=timedelta(seconds=30)),
        Task("auth.drop_roles", auth.roles.drop, time_limit=timedelta(seconds=30)),
    )
