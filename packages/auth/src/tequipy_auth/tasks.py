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
            # An outage of the mail server for some minutes costs no mail.
            retry=RetryPolicy(attempts=20, cap=timedelta(seconds=30), permanent=(MailRejected, LookupError)),
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
