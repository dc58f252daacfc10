"""Measures the cost of a repeated access token: our verification compared with PyJWT, which checks every signature.

All run in this process, in turn, as a FastAPI dependency would call them: `jwt.decode` of PyJWT with a loaded key, our
`verify` of a token that this process has not verified before, and of one that it has. Ours also checks whether the
session, the account's version or the key has been revoked.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import jwt
import uvloop
from pydantic import SecretStr
from report import print_table

from tequipy_auth import CACHE_POLICIES, Auth, Principal
from tequipy_auth.wiring import AuthSettings, build_auth
from tequipy_caching.wiring import CacheSettings, build_cache
from tequipy_devstack.servers import PostgresServer, ValkeyServer
from tequipy_devstack.tables import create_tables
from tequipy_platform.database import DatabaseSettings, build_database

BAR: Final = 0.1
ROUNDS: Final = 15
CALLS: Final = 500
ISSUER: Final = "https://app.example.com"


async def microseconds(calls: list[Callable[[], Awaitable[object]]]) -> float:
    """Return the average time of one of these calls."""
    began = time.perf_counter()
    for call in calls:
        await call()
    return (time.perf_counter() - began) / len(calls) * 1e6


async def compare(auth: Auth, algorithm: str) -> tuple[object, ...]:
    """Return a row: microseconds of PyJWT, of our first and repeated verification, and the ratio of the latter two."""
    principal = Principal(uuid4(), uuid4(), ("user",), 1, datetime.now(UTC), ("pwd",))
    keys = jwt.PyJWKSet.from_dict(await auth.access_tokens.jwks())
    measured: dict[str, list[float]] = {"peer": [], "first": [], "again": []}

    async def peer(token: str) -> object:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, key.key, algorithms=[algorithm], audience="tequipy", issuer=ISSUER)

    for _ in range(ROUNDS):
        tokens = [(await auth.access_tokens.issue(principal)).value for _ in range(CALLS)]
        measured["peer"].append(await microseconds([lambda token=token: peer(token) for token in tokens]))  # type: ignore[misc]  # -- a default binds the loop's variable
        for name in ("first", "again"):
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda token=token: auth.access_tokens.verify(token)  # type: ignore[misc]  # -- as above
                for token in tokens
            ]
            measured[name].append(await microseconds(calls))
    share = statistics.median(again / peer for again, peer in zip(measured["again"], measured["peer"], strict=True))
    return algorithm, *(statistics.median(values) for values in measured.values()), share


async def run(database_url: str, redis_url: str) -> list[tuple[object, ...]]:
    """Measure each algorithm with an auth service of its own."""
    rows = []
    for algorithm in ("ES256", "RS256", "EdDSA"):
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                build_database(DatabaseSettings.model_validate({"url": database_url}))
            )
            cache = build_cache(CacheSettings(url=SecretStr(redis_url), prefix=algorithm, policies=CACHE_POLICIES))
            auth = build_auth(
                AuthSettings.model_validate({"signing_algorithm": algorithm}),
                environment="test",
                public_url=ISSUER,
                database=database,
                cache=cache,
            )
            await stack.enter_async_context(cache)
            await stack.enter_async_context(auth)
            async with asyncio.timeout(10):
                while not cache.expiring_set("revocations").live:  # noqa: ASYNC110 -- a poll with a deadline
                    await asyncio.sleep(0.01)
            async with database.engine.begin() as connection:
                await connection.exec_driver_sql("truncate auth.signing_keys")
            rows.append(await compare(auth, algorithm))
    return rows


def main() -> None:
    """Run the comparison and print its table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        valkey = stack.enter_context(ValkeyServer(folder / "valkey"))
        create_tables(database_url := postgres.create_database("tequipy"))
        rows = uvloop.run(run(database_url, valkey.url()))
    print_table(
        f"A repeated access token: {ROUNDS} rounds of {CALLS} tokens, medians in µs; the bar of the share is {BAR}",
        ["", "PyJWT", "first time", "again", "again / PyJWT"],
        rows,
    )


if __name__ == "__main__":
    main()
