"""The migration history of auth's schema, run by `tequipy_platform.database.migrations.migrate`."""

from typing import Final

from tequipy_auth.infrastructure.models import Base
from tequipy_platform.database.migrations import History

__all__ = ["HISTORY"]

HISTORY: Final = History("auth", "tequipy_auth:migrations", Base.metadata)
"""The history of the tables for accounts, sessions, tokens and signing keys."""
