"""In-memory fakes of all ports, and a clock and ids that tests can predict."""

from tequipy_platform.testing.clock import EPOCH, CountingIds, FrozenClock
from tequipy_platform.testing.mail import RecordingMailer
from tequipy_platform.testing.message_log import MemoryMessageLog
from tequipy_platform.testing.messages import MemoryMessage, MemoryMessages
from tequipy_platform.testing.storage import MemoryStorage
from tequipy_platform.testing.unit_of_work import AddedTask, MemoryInbox, MemoryUnitOfWork, RecordingOutbox
from tequipy_platform.testing.unpublished import MemoryUnpublishedMessages

__all__ = [
    "EPOCH",
    "AddedTask",
    "CountingIds",
    "FrozenClock",
    "MemoryInbox",
    "MemoryMessage",
    "MemoryMessageLog",
    "MemoryMessages",
    "MemoryStorage",
    "MemoryUnitOfWork",
    "MemoryUnpublishedMessages",
    "RecordingMailer",
    "RecordingOutbox",
]
