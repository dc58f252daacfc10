"""The background tasks of auth."""

from datetime import timedelta

from tequipy_auth.domain.auth import Auth
from tequipy_platform import Mailer, MailRejected, RetryPolicy, Task


def auth_tasks(auth: Auth, mailer: Mailer) -> tuple[Task, ...]:
    """Return auth's tasks; mails are sent with `mailer`."""
    return (
        Task(
            "auth.send_mail",
            auth.mailing(mailer).send_mail,
            queue="email",
            time_limit=timedelta(seconds=30),
            # Mails survive a day without a mail server or with one that rejects us; RFC 5321, section 4.5.4.1,
            # recommends even longer retries. Greylisting ends after some minutes.
            retry=RetryPolicy(
                attempts=20, cap=timedelta(minutes=10), permanent=(MailRejected,), lifetime=timedelta(hours=24)
            ),
        ),
        Task("auth.publish_revocations", auth.session_issuer.publish_again, time_limit=timedelta(seconds=30)),
        Task(
            "auth.purge",
            auth.housekeeping.purge,
            every=timedelta(hours=1),
            time_limit=timedelta(seconds=30),  # the next run deletes the rest
        ),
        Task("auth.drop_profile", auth.accounts.drop_profile, time_limit=timedelta(seconds=30)),
        Task("auth.drop_roles", auth.roles.drop, time_limit=timedelta(seconds=30)),
    )
