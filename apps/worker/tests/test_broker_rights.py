"""The broker user's rights in the README are sufficient for worker and relay."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from redis import Redis

from tequipy_devstack.servers import ValkeyServer
from tequipy_platform import SystemClock
from tequipy_platform.database import DatabaseSettings, build_database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork
from tequipy_platform.messaging.celery import CelerySettings, build_celery
from tequipy_platform.messaging.celery.broker_probe import accepts_writes

README = Path(__file__).parents[1] / "README.md"


async def test_the_documented_rights_suffice(
    chain: Callable[[str], None], private_redis: ValkeyServer, database_url: str, tmp_path: Path
) -> None:
    """Tasks are published, run, retried and restored after a worker's death, and the probe works: nothing is denied."""
    (rights,) = re.findall(r"^ACL SETUSER broker on >\S+ (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    with Redis.from_url(private_redis.url(), decode_responses=True) as redis:
        redis.execute_command("ACL", "SETUSER", "broker", "reset", "on", "nopass", *rights.split())
        url = f"redis://broker@127.0.0.1:{private_redis.port}/0"
        use_directly(url)
        chain(url)
        settings = DatabaseSettings.model_validate({"url": database_url})
        async with build_database(settings) as database, SqlUnitOfWork(database, SystemClock(), uuid7) as work:
            work.outbox.add("chain.begin")
        notes, deadline = tmp_path / "notes", time.monotonic() + 60
        while not notes.exists() or len(notes.read_text().splitlines()) < 5:
            assert time.monotonic() < deadline, denied(redis)
            time.sleep(0.05)  # noqa: ASYNC251 -- no other coroutine runs here
        assert denied(redis) == []


def use_directly(url: str) -> None:
    """Probe the broker like a relay; take a message like a worker that dies, and restore it like the next worker."""
    celery = build_celery(CelerySettings(broker_url=SecretStr(url)), name="test")
    assert accepts_writes(celery)
    with celery.connection_for_write() as connection, connection.SimpleQueue("reports") as queue:
        queue.put({"number": 1})
        message = queue.get(timeout=10)
        qos: Any = message.channel.qos  # type: ignore[union-attr]  # -- a received message has a channel
        qos.restore_by_tag(message.delivery_tag)
        qos.restore_visible(interval=1)
        queue.get(timeout=10).ack()
    celery.close()


def denied(redis: Redis) -> list[tuple[Any, Any]]:
    """Return the commands that the server has denied to the user, with the reasons."""
    return [(entry["reason"], entry["object"]) for entry in redis.acl_log()]
