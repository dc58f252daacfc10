"""In-memory fakes of the ports that features use, and a clock and ids that tests can predict.

The fakes of the message log and of the relay's outbox are in `testing.message_log` and `testing.unpublished`: they are
for platform's own tests, and need SQLAlchemy's models.
"""

from tequipy_platform.testing.clock import EPOCH, CountingIds, FrozenClock
from tequipy_platform.testing.idempotency import MemoryIdempotencyKeys
from tequipy_platform.testing.mail import PlainMailTemplates, RecordingMailer
from tequipy_platform.testing.messages import MemoryMessage, MemoryMessages
from tequipy_platform.testing.storage import MemoryStorage
from tequipy_platform.testing.unit_of_work import AddedTask, MemoryInbox, MemoryUnitOfWork, RecordingOutbox

__all__ = [
    "EPOCH",
    "AddedTask",
    "CountingIds",
    "FrozenClock",
    "MemoryIdempotencyKeys",
    "MemoryInbox",
    "MemoryMessage",
    "MemoryMessages",
    "MemoryStorage",
    "MemoryUnitOfWork",
    "PlainMailTemplates",
    "RecordingMailer",
    "RecordingOutbox",
]
