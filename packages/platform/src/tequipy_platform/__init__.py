"""Shared ports and types of all packages: errors, tasks, events, unit of work, health, clock, mail, storage.

This module needs the standard library alone. Further public modules: `wiring`, `tasks`, `migrations`, `testing`, and
with the extras of the same names `api` and `celery`.
"""

from tequipy_platform.domain.clock import Clock, IdSource, RandomSource, SystemClock
from tequipy_platform.domain.events import JSON, Event
from tequipy_platform.domain.exceptions import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from tequipy_platform.domain.health import HealthCheck, RefusesWrites
from tequipy_platform.domain.mail import (
    Mail,
    Mailer,
    MailRejected,
    MailSenderRefused,
    MailTemplates,
    MailText,
    MailUnavailable,
)
from tequipy_platform.domain.outbox import (
    Batch,
    Inbox,
    Lease,
    MessageLog,
    Outbox,
    UnpublishedMessage,
    UnpublishedMessages,
)
from tequipy_platform.domain.storage import ObjectExists, ObjectNotFound, ObjectStorage, StoredObject
from tequipy_platform.domain.tasks import Crontab, Delivery, Handler, RetryPolicy, Task
from tequipy_platform.domain.unit_of_work import Conflicted, UnitOfWork, retry_conflicts

__all__ = [
    "JSON",
    "Batch",
    "Clock",
    "Conflict",
    "Conflicted",
    "Crontab",
    "Delivery",
    "DomainError",
    "Event",
    "Forbidden",
    "Handler",
    "HealthCheck",
    "IdSource",
    "Inbox",
    "Invalid",
    "Lease",
    "Mail",
    "MailRejected",
    "MailSenderRefused",
    "MailTemplates",
    "MailText",
    "MailUnavailable",
    "Mailer",
    "Malformed",
    "MessageLog",
    "NotFound",
    "ObjectExists",
    "ObjectNotFound",
    "ObjectStorage",
    "Outbox",
    "RandomSource",
    "RefusesWrites",
    "RetryPolicy",
    "StoredObject",
    "SystemClock",
    "Task",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "UnitOfWork",
    "UnpublishedMessage",
    "UnpublishedMessages",
    "retry_conflicts",
]
