"""The migration histories of all packages, in the order in which they run."""

from typing import Final

from tequipy_auth.migrations import HISTORY as AUTH
from tequipy_platform.migrations import HISTORY as PLATFORM
from tequipy_platform.migrations import History

HISTORIES: Final[tuple[History, ...]] = (PLATFORM, AUTH)
