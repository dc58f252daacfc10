"""Messages between processes: the unit of work with outbox and inbox, and what relay, worker and operators use.

The adapter for Celery is `tequipy_platform.messaging.celery`; the tables' history is in
`tequipy_platform.messaging.migrations`.
"""

from tequipy_platform.messaging.inspection import (
    MessageDetails,
    MessageInspection,
    MessageQuery,
    Repair,
    build_message_inspection,
)
from tequipy_platform.messaging.measuring import periodic_measurement
from tequipy_platform.messaging.message_log import SqlMessageLog, build_message_log
from tequipy_platform.messaging.models import SCHEMA
from tequipy_platform.messaging.scheduler import Scheduler, build_scheduler
from tequipy_platform.messaging.unit_of_work import SqlUnitOfWork
from tequipy_platform.messaging.unpublished import SqlUnpublishedMessages, build_unpublished_messages

__all__ = [
    "SCHEMA",
    "MessageDetails",
    "MessageInspection",
    "MessageQuery",
    "Repair",
    "Scheduler",
    "SqlMessageLog",
    "SqlUnitOfWork",
    "SqlUnpublishedMessages",
    "build_message_inspection",
    "build_message_log",
    "build_scheduler",
    "build_unpublished_messages",
    "periodic_measurement",
]
