"""The model of Redis answers as a real Valkey does, for all scripts in any order, also while writes are refused."""

import time
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tequipy_devstack.servers import ValkeyServer

from .both_sides import ACTIONS, LOSSES, NAMES, TAGS, Sides
from .redis_model import Refusal


def steps(actions: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.tuples(st.sampled_from(actions), st.sampled_from(NAMES), st.sampled_from(TAGS)), max_size=15)


def begin_refusing(client: Redis, server: ValkeyServer, refusal: Refusal | None) -> None:
    """Make a real server refuse writes."""
    match refusal:
        case "OOM":
            client.config_set("maxmemory", 1)
        case "READONLY":
            client.execute_command("REPLICAOF", "127.0.0.1", 1)  # type: ignore[no-untyped-call]  # -- redis-py
        case "NOREPLICAS":
            client.config_set("min-replicas-to-write", 1)
        case "NOPERM":
            client.execute_command("ACL", "SETUSER", "default", "resetkeys", "%R~*")  # type: ignore[no-untyped-call]  # -- as above
        case "MISCONF":
            client.config_set("appendonly", "no")
            client.config_set("save", "3600 1")
            (server.data / "dump.rdb").unlink(missing_ok=True)  # of the previous save
            (server.data / "dump.rdb").mkdir()
            save(client, "err")


def end_refusing(client: Redis, server: ValkeyServer, refusal: Refusal | None) -> None:
    """Make a real server accept writes again."""
    match refusal:
        case "OOM":
            client.config_set("maxmemory", 0)
        case "READONLY":
            client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]  # -- redis-py
        case "NOREPLICAS":
            client.config_set("min-replicas-to-write", 0)
        case "NOPERM":
            client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~*")  # type: ignore[no-untyped-call]  # -- as above
        case "MISCONF":
            (server.data / "dump.rdb").rmdir()
            save(client, "ok")


def save(client: Redis, outcome: str) -> None:
    client.bgsave()
    deadline = time.monotonic() + 20
    while True:
        state: Any = client.info("persistence")
        if not state["rdb_bgsave_in_progress"] and state["rdb_last_bgsave_status"] == outcome:
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("refusal", [None, *get_args(Refusal)])
def test_the_model_answers_as_a_server_does(private_redis: ValkeyServer, refusal: Refusal | None) -> None:
    """All scripts give the same responses and messages before, while and after a server refuses writes."""
    with Redis.from_url(private_redis.url()) as client:

        @settings(
            max_examples=5 if refusal == "MISCONF" else 25,
            suppress_health_check=list(HealthCheck),
        )
        @given(before=steps(ACTIONS + LOSSES), meanwhile=steps(ACTIONS), after=steps(ACTIONS + LOSSES))
        def compare(before: list[Any], meanwhile: list[Any], after: list[Any]) -> None:
            # Not in the background: meanwhile the server would accept writes above its limit of memory.
            client.execute_command("FLUSHALL", "SYNC")
            sides = Sides(client)
            try:
                _take(sides, before)
                begin_refusing(client, private_redis, refusal)
                try:
                    sides.model.refusal = refusal
                    _take(sides, meanwhile)
                    sides.model.refusal = None
                finally:
                    end_refusing(client, private_redis, refusal)
                _take(sides, after)
            finally:
                sides.close()

        compare()


def _take(sides: Sides, steps: list[Any]) -> None:
    for action, name, tag in steps:
        time.sleep(0.002)  # scripts compare ttls, so a ttl must not be as long as when it was set, on one side only
        action(sides, name, tag)
