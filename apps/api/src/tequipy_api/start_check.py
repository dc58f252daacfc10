"""Check at start that the active signing key can be read; a process that cannot sign tokens does not start."""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Final

from tequipy_api.settings import ApiSettings
from tequipy_auth import KeyUnusable
from tequipy_auth.wiring import build_auth
from tequipy_caching.wiring import build_cache
from tequipy_platform.database import build_database
from tequipy_platform.http import build_http_clients
from tequipy_platform.settings import variable_of

_SECONDS: Final = 2.0


def refuse_unusable_keys(settings: ApiSettings) -> None:
    """End the process with status 78 and one line on standard error if the active signing key cannot be read.

    If the database is unreachable or has no tables yet, the readiness check reports it later.
    """
    try:
        asyncio.run(_check(settings))
    except KeyUnusable as error:
        sys.stderr.write(f"{unusable_keys_line(error)}\n")
        raise SystemExit(os.EX_CONFIG) from None


def unusable_keys_line(error: KeyUnusable) -> str:
    """Return the reason with the name of the variable that has to be corrected, and the command that helps, if any."""
    line = f"{variable_of(ApiSettings, ('auth', error.setting))}: {error.reason}"
    if error.remedy == "reencrypt":
        return f"{line} Command: `tequipy-api keys reseal`."
    if error.remedy == "revoke":
        return f"{line} Command to revoke it: `tequipy-api keys revoke {error.kid}`."
    return line


async def _check(settings: ApiSettings) -> None:
    # Separate objects, because their connections belong to an event loop that ends before that of the server begins.
    database = build_database(settings.database)
    http = build_http_clients(settings.http, app_name=settings.app_name, app_version=settings.app_version)
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        database=database,
        cache=build_cache(settings.cache),
        http=http,
    )
    async with database, http, auth:
        checking = asyncio.create_task(auth.access_tokens.check())
        await asyncio.wait({checking}, timeout=_SECONDS)
        if checking.done() and isinstance(error := checking.exception(), KeyUnusable):
            raise error
        checking.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await checking
