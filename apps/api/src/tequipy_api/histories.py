"""The migration histories of all packages, in the order in which they run."""

from typing import Final

from tequipy_auth.migrations import HISTORY as AUTH
from tequipy_platform.database.migrations import History
from tequipy_platform.messaging.migrations import HISTORY as PLATFORM
from tequipy_reporting.migrations import HISTORY as REPORTING

HISTORIES: Final[tuple[History, ...]] = (PLATFORM, AUTH, REPORTING)
