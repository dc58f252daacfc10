"""Acknowledgements that fail because Redis is away."""

from pathlib import Path
from typing import Any

import pytest

from tequipy_devstack.servers import ValkeyServer

from .relaying import BuildWorker


@pytest.mark.parametrize("requeue", [None, True, False], ids=["ack", "requeue", "reject"])
def test_a_failed_acknowledgement_leaves_room_for_the_next_message(
    private_redis: ValkeyServer, build_worker: BuildWorker, tmp_path: Path, requeue: bool | None
) -> None:
    """A channel with a prefetch limit of one consumes again after the acknowledgement of its message has failed."""
    celery = build_worker(private_redis.url(), tmp_path)
    celery.send_task("test.note", queue="default")
    with celery.connection_for_read() as connection:
        channel: Any = connection.channel()
        channel.basic_qos(0, 1, False)
        message = channel.basic_get("default")
        assert not channel.qos.can_consume()
        private_redis.kill()
        with pytest.raises(connection.connection_errors):
            message.ack() if requeue is None else message.reject(requeue=requeue)
        assert channel.qos.can_consume()
        private_redis.restart()
    celery.close()
