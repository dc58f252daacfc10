"""What tests of missing permissions share: users with given rights, and what is logged of them."""

import asyncio
from typing import Any, cast

import pytest

from tequipy_caching._manager import TieredCacheManager
from tequipy_devstack.servers import ValkeyServer

from ..server_commands import command

USER = "tequipy"


async def give(server: ValkeyServer, *rights: str, user: str = USER) -> str:
    """Give a user exactly these permissions; return the URL with that user."""
    await command(server, "ACL", "SETUSER", user, "reset", "on", "nopass", *rights)
    return f"redis://{user}@127.0.0.1:{server.port}/0"


def refused_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [cast("Any", each).error for each in caplog.records if each.message == "cache_writes_refused"]


async def stays(manager: TieredCacheManager, eventually: Any) -> None:
    """Return when `health()` has not been `up` for longer than probes and attempts to join take."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 2.5

    async def over() -> bool:
        await manager.ping()
        await manager.cache("words", str).set("ada", "Ada")
        assert (manager.health().l2, manager.health().backplane) == ("refusing", "deaf")
        return loop.time() > ends

    await eventually(over)
