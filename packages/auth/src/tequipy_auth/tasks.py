"""The background tasks of auth."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from tequipy_auth.domain import task_names
from tequipy_auth.domain.auth import Auth
from tequipy_platform import Handler, Mailer, MailRejected, RetryPolicy, Task

__all__ = ["TASKS", "build_handlers"]

_MAIL_QUEUE: Final = "email"
"""A queue of its own, so that slow mail servers delay no other task."""

_SHORT: Final = timedelta(seconds=30)

SEND_MAIL: Final = Task(
    task_names.SEND_MAIL,
    queue=_MAIL_QUEUE,
    time_limit=_SHORT,
    # Mails survive a day without a mail server or with one that rejects us; RFC 5321, section 4.5.4.1, recommends even
    # longer retries. Greylisting ends after some minutes.
    retry=RetryPolicy(cap=timedelta(minutes=10), permanent=(MailRejected,), lifetime=timedelta(hours=24)),
)
PUBLISH_REVOCATIONS: Final = Task(task_names.PUBLISH_REVOCATIONS, time_limit=_SHORT)
PURGE: Final = Task(task_names.PURGE, every=timedelta(hours=1), time_limit=_SHORT)  # the next run deletes the rest
ERASE_ACCOUNTS: Final = Task(task_names.ERASE_ACCOUNTS, every=timedelta(hours=1))
DROP_PROFILE: Final = Task(task_names.DROP_PROFILE, time_limit=_SHORT)
DROP_ROLES: Final = Task(task_names.DROP_ROLES, time_limit=_SHORT)
TASKS: Final = (SEND_MAIL, PUBLISH_REVOCATIONS, PURGE, ERASE_ACCOUNTS, DROP_PROFILE, DROP_ROLES)


def build_handlers(auth: Auth, mailer: Mailer) -> Mapping[Task, Handler]:
    """Return a handler for each of `TASKS`; mails are sent with `mailer`."""
    return {
        SEND_MAIL: auth.mailing(mailer).send_mail,
        PUBLISH_REVOCATIONS: auth.session_issuer.publish_revocations,
        PURGE: auth.housekeeping.purge,
        ERASE_ACCOUNTS: auth.deletion.erase_due,
        DROP_PROFILE: auth.accounts.drop_profile,
        DROP_ROLES: auth.roles.drop_roles,
    }
