"""Shared ports and types of all packages: errors, tasks, events, unit of work, health, clock, mail, storage.

This module needs the standard library alone. Each capability is a public subpackage: `settings`, `database`
(with `database.migrations`), `messaging`, `mail`, `storage`; with the extra `api` also `web`, with the extra `celery`
also `messaging.celery`. `tasks` holds platform's own tasks, `testing` fakes of the ports.
"""

from tequipy_platform._clock import Clock, IdSource, RandomSource, SystemClock
from tequipy_platform._errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    PreconditionFailed,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from tequipy_platform._events import JSON, Event
from tequipy_platform._health import HealthCheck, RefusesWrites
from tequipy_platform._idempotency import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    IdempotencyKeys,
    IdempotentRequest,
)
from tequipy_platform._mail import (
    Mail,
    Mailer,
    MailRejected,
    MailSenderRefused,
    MailTemplates,
    MailText,
    MailUnavailable,
)
from tequipy_platform._messages import (
    MAX_PAYLOAD_BYTES,
    Attempt,
    Batch,
    Inbox,
    Lease,
    MessageLog,
    MessageState,
    Outbox,
    PayloadRefused,
    UnpublishedMessage,
    UnpublishedMessages,
)
from tequipy_platform._pages import Page, PageRequest
from tequipy_platform._storage import (
    ObjectExists,
    ObjectNotFound,
    ObjectStorage,
    ObjectTooLarge,
    StoredObject,
    content_disposition,
)
from tequipy_platform._tasks import Crontab, Delivery, Handler, RetryPolicy, Task
from tequipy_platform._unit_of_work import Conflicted, UnitOfWork, retry_conflicts

__all__ = [
    "JSON",
    "MAX_PAYLOAD_BYTES",
    "Attempt",
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
    "IdempotencyKeyInUse",
    "IdempotencyKeyReused",
    "IdempotencyKeys",
    "IdempotentRequest",
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
    "MessageState",
    "NotFound",
    "ObjectExists",
    "ObjectNotFound",
    "ObjectStorage",
    "ObjectTooLarge",
    "Outbox",
    "Page",
    "PageRequest",
    "PayloadRefused",
    "PreconditionFailed",
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
    "content_disposition",
    "retry_conflicts",
]
