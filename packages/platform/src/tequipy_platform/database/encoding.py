"""Check of the database's encoding, which must be UTF8."""

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types


class WrongEncoding(Exception):
    """The database's encoding cannot store every text: a request with such a text would fail while it is handled."""


def check_encoding(connection: asyncpg.Connection) -> None:
    """Raise `WrongEncoding` unless the encoding that the server reports to each connection is UTF8."""
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise WrongEncoding(f"the database's encoding is {encoding}: create it with ENCODING 'UTF8' TEMPLATE template0")
