"""Commands to a Valkey of a test, and what it answers about its replication."""

from typing import Any, cast

from redis.asyncio import Redis

from tequipy_devstack.servers import ValkeyServer


async def command(server: ValkeyServer, *words: Any) -> Any:
    """Execute a command on a server, as the user with all permissions."""
    async with Redis.from_url(server.url()) as redis:
        return await cast("Any", redis).execute_command(*words)


async def is_synchronized(replica: ValkeyServer) -> bool:
    """Return whether a replica has the data of its primary and has written its first file.

    While it writes that file it refuses to stop.
    """
    state = await command(replica, "INFO")
    return state["master_link_status"] == "up" and not state["aof_rewrite_in_progress"]
