"""Two API processes while Redis refuses writes: changes and logouts at one reach the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from time import perf_counter
from typing import NamedTuple

import httpx
import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tequipy_devstack.proving import Api, Deployment, eventually, fetch
from tequipy_devstack.proving.traffic import credentials
from tequipy_devstack.servers import ValkeyServer

pytestmark = pytest.mark.xdist_group("refused writes")

ME, LOGOUT, READINESS = "/api/v1/auth/me", "/api/v1/auth/logout", "/api/v1/readiness"
REFUSALS = {
    "memory is full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "no permission to write": ("ACL SETUSER default resetkeys %R~*", "ACL SETUSER default resetkeys ~*"),
    "too few replicas": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
}
"""Commands that make Redis refuse writes, and that end it; the failed save is caused by a function."""
KINDS = (*REFUSALS, "a save has failed")
BRIEF = "memory is full"
"""The refusal that `make test` tries; the quick proofs try the others."""
QUICK = [pytest.mark.prove, pytest.mark.quick]
MOST_STALE_READS = 30
"""How many reads at the other process, one after the other, may return the old state: about 40 ms of reads at rest.

Reads are counted instead of seconds, because a busy machine slows the reads down as much as the channel. Usually there
are none: Redis sends the message to the other process before the change returns.
"""


@pytest.fixture(scope="module")
def apis(deployment: Deployment) -> Iterator[tuple[Api, Api]]:
    """Yield two API processes on one PostgreSQL and one Valkey, which keep accounts in memory without a short ttl."""
    with ExitStack() as stack:
        one, other = (deployment.api(TEQUIPY_CACHE__POLICIES="{}") for _ in range(2))
        yield stack.enter_context(one), stack.enter_context(other)


@pytest.fixture
def third(deployment: Deployment) -> Api:
    """Return a third process, which a test starts itself."""
    return deployment.api(TEQUIPY_CACHE__POLICIES="{}")


def fail_to_save(redis: Redis, server: ValkeyServer) -> None:
    """Make a save fail by a folder in the place of the file."""
    redis.config_set("save", "3600 1")
    eventually("no save goes on", lambda: not redis.info("persistence")["rdb_bgsave_in_progress"])
    (server.data / "dump.rdb").unlink(missing_ok=True)  # of the last save that went well
    (server.data / "dump.rdb").mkdir()
    redis.bgsave()
    eventually("the save has failed", lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err")


def save_again(redis: Redis, server: ValkeyServer) -> None:
    (server.data / "dump.rdb").rmdir()

    def saved() -> bool:
        try:
            redis.bgsave()
        except ResponseError:  # the previous save is still running
            return False
        return bool(redis.info("persistence")["rdb_last_bgsave_status"] == "ok")

    eventually("it saves again", saved)


def redis_status(api: Api) -> tuple[int, str, str]:
    """Return the readiness report."""
    answer = fetch(f"{api.url}{READINESS}")
    return answer.status_code, answer.json()["status"], answer.json()["checks"]["redis"]["status"]


class Delay(NamedTuple):
    """How long a change was not seen: old reads, and the seconds from its return to the start of the first new read."""

    stale_reads: int
    seconds: float


def until_seen(is_new: Callable[[], bool]) -> Delay:
    """Read until a read returns the new state, or until ten times as many reads as allowed have not."""
    changed, stale_reads = perf_counter(), 0
    while True:
        began = perf_counter()
        if is_new() or stale_reads >= 10 * MOST_STALE_READS:
            return Delay(stale_reads, began - changed)
        stale_reads += 1


def describe(delays: list[Delay]) -> str:
    """Return the median and the longest delay."""
    seconds = [delay.seconds for delay in delays]
    worst = max(delay.stale_reads for delay in delays)
    return f"p50 {1000 * median(seconds):.2f} ms, max {1000 * max(seconds):.2f} ms, at most {worst} stale reads"


@contextmanager
def refusing(kind: str, server: ValkeyServer) -> Iterator[None]:
    """Make Redis refuse writes while the block lasts."""
    with Redis.from_url(server.url()) as operator:
        begin, end = REFUSALS.get(kind, ("", ""))
        if begin:
            operator.execute_command(*begin.split())
        else:
            fail_to_save(operator, server)
        try:
            yield
        finally:
            if end:
                operator.execute_command(*end.split())
            else:
                save_again(operator, server)


def test_a_save_can_fail_again(redis: ValkeyServer) -> None:
    """Writes are refused for a failed save as often as a run wants it, and taken in between."""
    with Redis.from_url(redis.url()) as client:
        for _ in range(2):
            with refusing("a save has failed", redis), pytest.raises(ResponseError, match="MISCONF"):
                client.set("word", "refused")
            assert client.set("word", "taken")


@pytest.mark.parametrize(
    ("kind", "rounds"),
    [
        *(pytest.param(kind, 5, id=f"{kind}-short", marks=() if kind == BRIEF else QUICK) for kind in KINDS),
        *(pytest.param(kind, 100, id=f"{kind}-long", marks=pytest.mark.prove) for kind in KINDS),
    ],
)
def test_changes_and_logouts_are_seen_by_both(
    apis: tuple[Api, Api], third: Api, redis: ValkeyServer, kind: str, rounds: int
) -> None:
    """A changed profile and a logout at one process are seen at the other as soon as without a refusal.

    A process that starts meanwhile sees no old state either.
    """
    one, other = (httpx.Client(base_url=api.url, timeout=60) for api in apis)

    def log_in() -> dict[str, str]:
        answer = one.post("/api/v1/auth/login", json=dict(credentials())).raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def look(headers: dict[str, str]) -> httpx.Response:
        return other.get(ME, headers=headers)

    def change_name(headers: dict[str, str], name: str) -> Delay:
        assert look(headers).status_code == 200
        assert one.patch(ME, headers=headers, json={"name": name}).status_code == 200
        return until_seen(lambda: bool(look(headers).json()["name"] == name))

    def log_out(headers: dict[str, str]) -> Delay:
        assert look(headers).status_code == 200
        assert one.post(LOGOUT, headers=headers).status_code == 204
        return until_seen(lambda: look(headers).status_code == 401)

    def measure(state: str, sessions: list[dict[str, str]]) -> list[Delay]:
        names = [change_name(owner, f"{kind}, {state} {number}") for number in range(rounds)]
        logouts = [log_out(session) for session in sessions]
        print(f"\n{kind}, {state}, {rounds} rounds: names {describe(names)}; logouts {describe(logouts)}")
        return names + logouts

    def both_say(*expected: object) -> None:
        for api in apis:
            eventually(f"readiness is {expected}", lambda api=api: redis_status(api) == expected)  # type: ignore[misc]  # -- the default binds the process

    with one, other:
        owner, *sessions = [log_in() for _ in range(1 + 2 * rounds)]
        both_say(200, "ready", "up")
        delays = measure("accepted", sessions[:rounds])
        with refusing(kind, redis):
            delays += measure("refused", sessions[rounds:])
            both_say(200, "degraded", "refusing")
            with third, httpx.Client(base_url=third.url, timeout=60) as late:
                assert late.get(ME, headers=owner).json()["name"] == look(owner).json()["name"]
                assert {late.get(ME, headers=session).status_code for session in sessions} == {401}
        assert max(delay.stale_reads for delay in delays) <= MOST_STALE_READS
        both_say(200, "ready", "up")
