"""Checks before the API listens that the signing keys can be read: a process that can sign nothing does not start."""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Final

from tequipy_api.settings import ApiSettings
from tequipy_auth import KeyUnusable
from tequipy_auth.wiring import build_auth
from tequipy_caching.wiring import build_cache
from tequipy_platform.wiring import build_database

_SECONDS: Final = 2.0


def refuse_unusable_keys(settings: ApiSettings) -> None:
    """End the process with status 78 and one line on standard error when the active signing key cannot be read.

    What cannot be known now, because the database is away or has no tables yet, is for readiness to say later.
    """
    try:
        asyncio.run(_check(settings))
    except KeyUnusable as error:
        sys.stderr.write(f"{unusable_keys_line(error)}\n")
        raise SystemExit(os.EX_CONFIG) from None


def unusable_keys_line(error: KeyUnusable) -> str:
    """Return what is wrong, with the variable that decides it."""
    return f"TEQUIPY_AUTH__{error.setting.upper()}: {error.reason}"


async def _check(settings: ApiSettings) -> None:
    # Objects of its own: what is opened here belongs to an event loop that ends before the server's begins.
    database = build_database(settings.database)
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        database=database,
        cache=build_cache(settings.cache),
    )
    async with database, auth:
        checking = asyncio.create_task(auth.access_tokens.check())
        await asyncio.wait({checking}, timeout=_SECONDS)
        if checking.done() and isinstance(error := checking.exception(), KeyUnusable):
            raise error
        checking.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await checking
