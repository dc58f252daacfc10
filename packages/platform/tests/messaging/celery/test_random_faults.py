"""Exactly one effect for each message while processes, broker and database are killed and frozen at random."""

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest
from redis import Redis

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.processes import freeze_family
from tequipy_devstack.servers import ValkeyServer
from tequipy_platform.messaging import SqlUnitOfWork

from .releases import Releases


def kill_child(releases: Releases, _: ValkeyServer) -> None:
    if children := psutil.Process(releases.running["worker"].pid).children():
        children[0].send_signal(signal.SIGKILL)


def kill_worker(releases: Releases, _: ValkeyServer) -> None:
    releases.kill("worker")
    releases.start("worker", "run")


def kill_relay(releases: Releases, _: ValkeyServer) -> None:
    releases.kill("relay")
    releases.start("relay", "relay")


def stop_worker(releases: Releases, _: ValkeyServer) -> None:
    releases.stop("worker")
    releases.start("worker", "run")


def freeze_worker(releases: Releases, _: ValkeyServer) -> None:
    members = freeze_family(releases.running["worker"].pid)
    time.sleep(1)
    for member in members:
        member.resume()


def kill_broker(_: Releases, redis: ValkeyServer) -> None:
    redis.kill()
    redis.restart()


def freeze_broker(_: Releases, redis: ValkeyServer) -> None:
    redis.freeze()
    time.sleep(2)
    redis.thaw()


def empty_broker(_: Releases, redis: ValkeyServer) -> None:
    redis.restart(empty=True)


def fill_broker(_: Releases, redis: ValkeyServer) -> None:
    with Redis.from_url(redis.url()) as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(1)
        client.config_set("maxmemory", "0")


def restart_database(releases: Releases, _: ValkeyServer) -> None:
    releases.postgres.kill()
    releases.postgres.restart()


def freeze_database(releases: Releases, _: ValkeyServer) -> None:
    releases.postgres.freeze()
    time.sleep(1)
    releases.postgres.thaw()


FAULTS: list[Callable[[Releases, ValkeyServer], None]] = [
    kill_child,
    kill_worker,
    kill_relay,
    stop_worker,
    freeze_worker,
    kill_broker,
    freeze_broker,
    empty_broker,
    fill_broker,
    restart_database,
    freeze_database,
]


def restart_what_ended(releases: Releases) -> int:
    """Do what a supervisor does; return how many processes had ended by themselves."""
    ended = [name for name, process in releases.running.items() if process.poll() is not None]
    for name in ended:
        releases.start(name, "relay" if name == "relay" else "run")
    return len(ended)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("messages", "seconds"),
    [
        pytest.param(200, 15, id="short", marks=[pytest.mark.prove, pytest.mark.quick]),
        pytest.param(1000, 120, id="long", marks=pytest.mark.prove),
    ],
)
def test_each_message_has_one_effect(
    releases: Releases, private_redis: ValkeyServer, mail_sink: MailSink, messages: int, seconds: float
) -> None:
    """Whatever is killed or frozen, each task has one effect in the database, and each mail one Message-ID."""
    seed = random.randrange(10**6)  # noqa: S311 -- no secret
    chance = random.Random(seed)  # noqa: S311 -- no secret
    before = set(mail_sink.folder.glob("*.eml"))
    releases.start("relay", "relay")
    releases.start("worker", "run")
    done: Counter[str] = Counter()
    began, added, ended = time.monotonic(), 0, 0
    while (passed := time.monotonic() - began) < seconds:
        due = min(messages, int(messages * passed / (seconds * 0.9)))
        numbers = range(added, due)

        def write(work: SqlUnitOfWork, numbers: range = numbers) -> None:
            for number in numbers:
                work.outbox.add("release.effect", number=number)
                if number % 10 == 0:
                    work.outbox.add("release.mail", number=number)

        releases.add(write)
        added = due
        fault = chance.choice(FAULTS)
        fault(releases, private_redis)
        done[fault.__name__] += 1
        time.sleep(chance.uniform(0, 2))
        ended += restart_what_ended(releases)

    def write_rest(work: SqlUnitOfWork) -> None:
        for number in range(added, messages):
            work.outbox.add("release.effect", number=number)
            if number % 10 == 0:
                work.outbox.add("release.mail", number=number)

    releases.add(write_rest)
    deadline = time.monotonic() + 240
    while set(releases.states()) != {"done"} and time.monotonic() < deadline:
        restart_what_ended(releases)
        time.sleep(0.5)
    effects = releases.effects()
    mails = [path.read_text() for path in set(mail_sink.folder.glob("*.eml")) - before]
    ids = Counter(re.findall(r"(?im)^message-id: *(\S+)", "\n".join(mails)))
    deaths = releases.sql("select coalesce(sum(deaths), 0) from platform.outbox")[0]
    print(
        f"\nseed {seed}: {sum(done.values())} faults ({', '.join(f'{name} {n}' for name, n in sorted(done.items()))}), "
        f"{ended} processes ended by themselves; {messages} tasks: {len(effects)} effects, "
        f"{effects.total() - len(effects)} twice; {messages // 10} mails: {len(ids)} Message-IDs, "
        f"{ids.total() - len(ids)} sent again; {deaths} attempts died; states {dict(releases.states())}"
    )
    assert effects == Counter({f"release.effect {number}": 1 for number in range(messages)}), seed
    assert len(ids) == messages // 10
    assert set(releases.states()) == {"done"}
