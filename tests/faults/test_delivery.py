"""Committed messages take effect once, whatever process or server is killed, frozen or emptied."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.processes import freeze_family
from tequipy_devstack.proving import (
    REGISTER,
    Api,
    Deployment,
    Link,
    Load,
    Program,
    count,
    eventually,
    in_background,
    slowest,
)
from tequipy_devstack.proving.traffic import registration
from tequipy_devstack.servers import PostgresServer, ValkeyServer

Fault = Callable[[Program, ValkeyServer], None]
Quiet = Callable[[], bool]

HERE = Path(__file__).parent
# The module's deployment has one outbox and one broker, so these tests must run one after another.
pytestmark = [pytest.mark.xdist_group("delivery"), pytest.mark.timeout(600)]


def sizes(short: int, long: int) -> list[object]:
    quick = [pytest.mark.prove, pytest.mark.quick]
    return [pytest.param(short, id="short", marks=quick), pytest.param(long, id="long", marks=pytest.mark.prove)]


class Post:
    """The mails that arrive during one test."""

    def __init__(self, mails: MailSink) -> None:
        self._folder = mails.folder
        self._before = set(self._folder.glob("*.eml"))

    def ids(self) -> Counter[str]:
        """Return the number of mails by Message-ID."""
        new = set(self._folder.glob("*.eml")) - self._before
        found = (re.search(r"(?im)^message-id: *(\S+)", mail.read_text()) for mail in new)
        return Counter(match[1] for match in found if match)

    def goes_on(self) -> None:
        """Wait until further mails have arrived."""
        target = len(self.ids()) + 5
        eventually("mails arrive", lambda: len(self.ids()) >= target)

    def describe(self, expected: int) -> str:
        ids = self.ids()
        return f"{expected} asked for, {max(0, expected - len(ids))} lost, {ids.total() - len(ids)} sent twice"


def accepted(load: Load) -> int:
    """Return the number of accepted registrations; a starved machine may refuse some, and mails none of these."""
    counts = count(load.samples)
    assert set(counts) <= {"202 accepted", "503 unavailable"}
    return counts["202 accepted"]


def task_retries(worker: Program) -> int:
    """Return the number of failed attempts of the worker's tasks."""
    return worker.log.read_text().count("task_retried")


@pytest.fixture
def post(mails: MailSink) -> Post:
    return Post(mails)


@pytest.fixture
def quiet(postgres: PostgresServer, redis: ValkeyServer) -> Quiet:
    """Return a function that returns whether all messages are settled and none is in the broker or a worker."""

    def is_quiet() -> bool:
        unsettled = "SELECT count(*) FROM platform.outbox WHERE settled_at IS NULL"
        waiting = redis._run("select 1\nllen email\nhlen unacked\n").split()
        return postgres.execute(unsettled, database="tequipy").strip() == "0" and waiting == ["OK", "0", "0"]

    return is_quiet


@pytest.fixture(scope="module")
def mail_link(mails: MailSink) -> Iterator[Link]:
    """Yield the link from the worker to the mail server."""
    with in_background(Link(mails.port)) as link:
        yield link


@pytest.fixture(scope="module")
def worker(deployment: Deployment, mail_link: Link) -> Iterator[Program]:
    mail_url = f"smtp://127.0.0.1:{mail_link.port}"
    with deployment.worker(TEQUIPY_MAIL__SMTP_URL=mail_url, TEQUIPY_MAIL__TIMEOUT="2") as worker:
        yield worker


@pytest.fixture(scope="module")
def relay(deployment: Deployment) -> Iterator[Program]:
    with deployment.relay() as relay:
        yield relay


@pytest.fixture(scope="module")
def api(deployment: Deployment) -> Iterator[Api]:
    with deployment.api() as api:
        yield api


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("requests", sizes(100, 600))
def test_writes_work_without_the_broker(
    api: Api, worker: Program, redis: ValkeyServer, post: Post, requests: int
) -> None:
    """With Redis down during 20 registrations a second, all give 202 before it is back, and every task runs then."""
    retries = task_retries(worker)
    with Load(api.url, [REGISTER], rate=20) as load:
        redis.kill()
        began = time.monotonic()
        load.send(requests)
        # A write that needed the broker would be answered only after the broker's return.
        eventually("the writes are answered while Redis is away", lambda: len(load.samples) >= requests)
        away = time.monotonic() - began
        redis.restart()
        back = time.monotonic()
    asked = len(load.samples)
    assert count(load.samples) == {"202 accepted": asked}
    eventually("every task has run", lambda: len(post.ids()) >= asked, within=240)
    print(
        f"\nRedis away for {away:.0f} s: writes {count(load.samples)}, slowest {slowest(load.samples) * 1000:.0f} ms; "
        f"{post.describe(asked)}, the last one {time.monotonic() - back:.1f} s after it was back"
    )
    ids = post.ids()
    assert len(ids) == asked
    # A mail that took longer than the worker's timeout in this module is sent again under the same id.
    assert ids.total() - asked <= task_retries(worker) - retries


@pytest.mark.usefixtures("worker", "relay")
@pytest.mark.parametrize("deaths", sizes(3, 50))
def test_an_api_killed_before_publishing_loses_nothing(deployment: Deployment, post: Post, deaths: int) -> None:
    """After `kill -9` right after each commit, the client has no response, and one mail per registration arrives."""
    api = deployment.api(sys.executable, HERE / "api_program.py")
    with api:
        for _ in range(deaths):
            eventually("the API is up again", api.is_ready)
            with pytest.raises(httpx.TransportError):
                httpx.post(f"{api.url}{REGISTER.path}", json=dict(registration()))
    eventually("every mail has arrived", lambda: len(post.ids()) >= deaths)
    print(f"\nAPI killed {deaths} times right after its commit: {post.describe(deaths)}")
    assert post.ids().total() == len(post.ids()) == deaths


@pytest.mark.parametrize("deaths", sizes(3, 50))
def test_a_relay_killed_before_marking_sends_nothing_twice(
    deployment: Deployment, api: Api, relay: Program, worker: Program, quiet: Quiet, post: Post, deaths: int
) -> None:
    """With `kill -9` between publication and marking, every mail arrives once."""
    retries = task_retries(worker)
    relay.terminate()
    with deployment.relay(sys.executable, HERE / "relay_program.py", str(deaths)) as mortal:
        deadline = time.monotonic() + 300
        with Load(api.url, [REGISTER], rate=10) as load:
            load.send(30)
            # Settled messages are not published again, so each death needs an unsettled message.
            while mortal.log.read_text().count("died\n") < deaths:
                assert time.monotonic() < deadline, "it has not died that often"
                load.send(1)
        asked = accepted(load)
        eventually("every message is over", quiet, within=300, every=0.2)
    relay.start()
    print(f"\nRelay killed {deaths} times between publishing and marking: {post.describe(asked)}")
    ids = post.ids()
    assert len(ids) == asked
    assert ids.total() - asked <= task_retries(worker) - retries  # as above: only after a timeout of the worker


def kill_child(worker: Program, _: ValkeyServer) -> None:
    psutil.Process(worker.pid).children()[0].kill()


def kill_worker(worker: Program, _: ValkeyServer) -> None:
    worker.kill()
    worker.start()


def freeze_worker(worker: Program, _: ValkeyServer) -> None:
    members = freeze_family(worker.pid)
    time.sleep(2)
    for member in members:
        member.resume()


def freeze_broker(_: Program, redis: ValkeyServer) -> None:
    redis.freeze()
    time.sleep(2)
    redis.thaw()


def kill_broker(_: Program, redis: ValkeyServer) -> None:
    redis.kill()
    redis.restart()


def empty_broker(_: Program, redis: ValkeyServer) -> None:
    redis.restart(empty=True)


QUICK_FAULTS = [freeze_worker, freeze_broker, kill_broker]
SLOW_FAULTS = [kill_child, kill_worker, empty_broker]
"""Faults after which messages return when a lease or the visibility timeout expires, that is, after half a minute."""


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize(
    ("tasks", "faults"),
    [
        pytest.param(100, QUICK_FAULTS, id="short"),
        pytest.param(1000, [*QUICK_FAULTS, *SLOW_FAULTS], id="long", marks=pytest.mark.prove),
    ],
)
def test_no_task_is_lost(
    api: Api,
    worker: Program,
    redis: ValkeyServer,
    mail_link: Link,
    post: Post,
    quiet: Quiet,
    tasks: int,
    faults: Sequence[Fault],
) -> None:
    """Every waiting task runs although worker and broker are killed and frozen and the broker is emptied."""
    mail_link.delay = 0.01  # so that tasks have to wait
    with Load(api.url, [REGISTER], rate=100) as load:
        load.send(tasks)
    asked, began = accepted(load), time.monotonic()
    for fault in faults:
        post.goes_on()
        assert len(post.ids()) < asked
        fault(worker, redis)
    mail_link.delay = 0
    eventually("every task has run", lambda: len(post.ids()) >= asked, within=300)
    names = ", ".join(fault.__name__ for fault in faults)
    print(f"\n{names}: {post.describe(asked)}, {time.monotonic() - began:.0f} s")
    assert len(post.ids()) == asked
    eventually("no mail is sent again during the next test", quiet, within=120, every=0.2)


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("fault", ["away", "mute"])
def test_mails_wait_for_their_server(
    api: Api, worker: Program, mails: MailSink, mail_link: Link, post: Post, fault: str
) -> None:
    """With the mail server down or hanging, registrations give 202, and the mails arrive when it is back."""
    if fault == "mute":
        mail_link.delay = 60
    else:
        mail_link.target = None
    retried = worker.log.read_text().count("task_retried")
    with Load(api.url, [REGISTER], rate=10) as load:
        load.send(10)
        eventually("a mail has failed", lambda: worker.log.read_text().count("task_retried") > retried)
    assert post.ids() == {}
    mail_link.delay, mail_link.target = 0, mails.port
    asked = accepted(load)
    eventually("every mail has arrived", lambda: len(post.ids()) >= asked)
    assert count(load.samples) == {"202 accepted": asked}
    assert post.ids().total() == len(post.ids()) == asked
