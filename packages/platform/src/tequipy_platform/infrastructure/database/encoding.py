"""The one encoding that a database may have."""

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types


class WrongEncoding(Exception):
    """The database cannot store every text: what it cannot encode would fail in the middle of a request."""


def check_encoding(connection: asyncpg.Connection) -> None:
    """Raise `WrongEncoding` unless the database's encoding, which the server tells each new connection, is UTF8."""
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise WrongEncoding(f"the database's encoding is {encoding}: create it with ENCODING 'UTF8' TEMPLATE template0")
