"""Ways to make a Valkey refuse writes, and to end it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tequipy_devstack.servers import ValkeyServer

from ..server_commands import command


async def eventually_true(probe: Callable[[], Awaitable[bool]]) -> None:
    """Return when the probe is true; fail after 20 s."""
    async with asyncio.timeout(20):
        while not await probe():
            await asyncio.sleep(0.01)


async def fill(server: ValkeyServer) -> None:
    """Fill the memory without eviction."""
    await command(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await command(server, "CONFIG", "SET", "maxmemory", 1)


async def make_room(server: ValkeyServer) -> None:
    await command(server, "CONFIG", "SET", "maxmemory", 0)


async def fail_to_save(server: ValkeyServer) -> None:
    """Make a save fail with a file that cannot be written, so that the server refuses writes."""
    await command(server, "CONFIG", "SET", "appendonly", "no")
    await command(server, "CONFIG", "SET", "save", "3600 1")
    (server.data / "dump.rdb").mkdir()
    await save(server, "err")


async def save_again(server: ValkeyServer) -> None:
    (server.data / "dump.rdb").rmdir()
    await save(server, "ok")


async def save(server: ValkeyServer, outcome: str) -> None:
    await command(server, "BGSAVE")

    async def done() -> bool:
        state = await command(server, "INFO", "persistence")
        return not state["rdb_bgsave_in_progress"] and state["rdb_last_bgsave_status"] == outcome

    await eventually_true(done)


USER = "tequipy"
RIGHTS = ("on", "nopass", "~*", "&*", "+@all", "-@dangerous", "+info")


async def take_rights(server: ValkeyServer) -> None:
    await command(server, "ACL", "SETUSER", USER, "reset", *RIGHTS, "resetkeys", "%R~*")


async def give_rights(server: ValkeyServer) -> None:
    await command(server, "ACL", "SETUSER", USER, "reset", *RIGHTS)


@dataclass(frozen=True)
class Refusal:
    """A way to make Redis refuse writes, a way to end it, and the first words of the reason."""

    begin: Callable[[ValkeyServer], Awaitable[Any]]
    end: Callable[[ValkeyServer], Awaitable[Any]]
    code: str


REFUSALS = {
    "memory is full": Refusal(fill, make_room, "OOM"),
    "a save has failed": Refusal(fail_to_save, save_again, "MISCONF"),
    "a replica": Refusal(
        lambda server: command(server, "REPLICAOF", "127.0.0.1", 1),
        lambda server: command(server, "REPLICAOF", "NO", "ONE"),
        "READONLY",
    ),
    "too few replicas": Refusal(
        lambda server: command(server, "CONFIG", "SET", "min-replicas-to-write", 1),
        lambda server: command(server, "CONFIG", "SET", "min-replicas-to-write", 0),
        "NOREPLICAS",
    ),
    "no right to write": Refusal(take_rights, give_rights, "NOPERM"),
}


def url(server: ValkeyServer) -> str:
    return f"redis://{USER}@127.0.0.1:{server.port}/0"
