"""The migration history of platform's own tables, outbox and inbox; `tequipy_platform.database.migrations` runs it."""

from typing import Final

from tequipy_platform.database.migrations import History
from tequipy_platform.messaging.models import SCHEMA, Base

__all__ = ["HISTORY"]

HISTORY: Final = History(SCHEMA, "tequipy_platform.messaging:migrations", Base.metadata)
