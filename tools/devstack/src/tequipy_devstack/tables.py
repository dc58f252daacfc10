"""The tables of every package in one database, as `tequipy-api migrate upgrade head` makes them."""

from tequipy_auth.migrations import HISTORY as AUTH
from tequipy_platform.migrations import HISTORY as PLATFORM
from tequipy_platform.migrations import migrate


def create_tables(database_url: str) -> None:
    """Bring an empty database to the head of every history."""
    migrate(database_url, [PLATFORM, AUTH])
