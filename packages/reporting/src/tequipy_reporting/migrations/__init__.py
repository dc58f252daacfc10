"""The migration history of reporting's schema, run by `tequipy_platform.database.migrations.migrate`."""

from typing import Final

from tequipy_platform.database.migrations import History
from tequipy_reporting.infrastructure.models import Base

__all__ = ["HISTORY"]

HISTORY: Final = History("reporting", "tequipy_reporting:migrations", Base.metadata)
"""The history of the tables for reports."""
