"""Creates the tables of all packages in one database, as `tequipy-api migrate upgrade head` does."""

from tequipy_api.histories import HISTORIES
from tequipy_platform.database.migrations import migrate


def create_tables(database_url: str) -> None:
    """Upgrade an empty database to the head of every history."""
    migrate(database_url, HISTORIES)
