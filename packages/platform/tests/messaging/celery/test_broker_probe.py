"""The probe tells a broker that refuses everything from one that refuses a single message, within seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis import Redis

from tequipy_devstack.servers import ValkeyServer
from tequipy_platform.messaging.celery import CelerySettings, build_celery
from tequipy_platform.messaging.celery.broker_probe import PROBE_QUEUE, accepts_writes

Fault = Callable[[ValkeyServer, Redis], None]


def be_full(_: ValkeyServer, redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", 1)


def be_a_replica(_: ValkeyServer, redis: Redis) -> None:
    redis.replicaof("127.0.0.1", "1")


def hang(server: ValkeyServer, _: Redis) -> None:
    server.freeze()


def be_away(server: ValkeyServer, _: Redis) -> None:
    server.kill()


def deny_the_probe(_: ValkeyServer, redis: Redis) -> None:
    redis.acl_setuser("default", keys=["default*"], reset_keys=True, enabled=True)


@contextmanager
def celery_on(url: str) -> Iterator[Celery]:
    celery = build_celery(CelerySettings(broker_url=SecretStr(url)), name="test")
    yield celery
    celery.close()


@pytest.mark.parametrize("fault", [be_full, be_a_replica, hang, be_away, deny_the_probe])
@pytest.mark.timeout(60)
def test_a_broker_that_refuses_every_write_is_told(private_redis: ValkeyServer, fault: Fault) -> None:
    """The probe fails on a full broker, a replica, a broker that hangs or is away, and one that denies the queue."""
    with celery_on(private_redis.url()) as celery, Redis.from_url(private_redis.url()) as redis:
        assert accepts_writes(celery)
        fault(private_redis, redis)
        assert not accepts_writes(celery)


def test_a_refusal_is_logged_with_its_reason(private_redis: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """Why a broker that answers refuses the probe stands in the log, and neither user nor password do."""
    with celery_on(private_redis.url()) as celery, Redis.from_url(private_redis.url()) as redis:
        be_full(private_redis, redis)
        assert not accepts_writes(celery)
    (record,) = [record for record in caplog.records if record.message == "broker_probe_failed"]
    assert (record.levelname, "maxmemory" in record.__dict__["error"]) == ("WARNING", True)
    assert private_redis.password not in str(record.__dict__)


def test_a_broker_that_refuses_one_queue_accepts_writes(private_redis: ValkeyServer) -> None:
    """A user without the right to one queue gets an error for its messages, and the probe succeeds."""
    with Redis.from_url(private_redis.url()) as redis:
        queues = ("~email*", f"~{PROBE_QUEUE}*", "~_kombu.binding*")
        redis.execute_command("ACL", "SETUSER", "broker", "on", "nopass", "+@all", *queues)
    with celery_on(f"redis://broker@127.0.0.1:{private_redis.port}/0") as celery:
        with pytest.raises(OperationalError, match="key"):
            celery.send_task("test.note", queue="default", retry=False)
        assert accepts_writes(celery)


def test_a_probe_leaves_nothing(private_redis: ValkeyServer) -> None:
    """The broker is as empty after a probe as before, also if an earlier one died before it removed its message."""
    with celery_on(private_redis.url()) as celery, Redis.from_url(private_redis.url()) as redis:
        redis.lpush(PROBE_QUEUE, "left by a relay that was killed")
        assert accepts_writes(celery)
        assert redis.keys("*") == []
