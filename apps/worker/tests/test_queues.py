"""`run --queues --concurrency`, and the memory of child processes, with real workers."""

from collections.abc import Sequence

import psutil
import pytest

from tequipy_worker.catalogue import QUEUES

from .shell import Shell

MAIL_SECONDS = 8


@pytest.mark.prove
@pytest.mark.quick
async def test_slow_mails_delay_no_other_queue(shell: Shell) -> None:
    """While one worker sends mails that take 8 s each, the worker of the other queues runs its tasks."""
    shell.start("relay", "relay")
    mailer = shell.start("mailer", "run", "--queues", "email", "--concurrency", "2")
    others = ",".join(queue for queue in QUEUES if queue != "email")
    worker = shell.start("worker", "run", "--queues", others)
    for _ in range(4):
        await shell.add("test.mail", seconds=MAIL_SECONDS)
    mails = shell.await_events("started", 2)
    for _ in range(5):
        await shell.add("test.sleep", seconds=0)
    finished = shell.await_events("finished", 5)
    mail_ids = {event["id"] for event in mails}
    assert not mail_ids & {event["id"] for event in finished[:5]}, "no mail is sent yet"
    assert {event["parent"] for event in mails} == {mailer.pid}
    assert {event["parent"] for event in shell.events("started") if event["id"] not in mail_ids} >= {worker.pid}


@pytest.mark.parametrize(
    ("option", "children"), [pytest.param((), 3, marks=pytest.mark.prove), (("--concurrency", "1"), 1)]
)
def test_the_option_overrides_the_number_of_children(option: Sequence[str], children: int, shell: Shell) -> None:
    """`--concurrency` overrides TEQUIPY_WORKER__CONCURRENCY."""
    worker = shell.start("worker", "run", *option, TEQUIPY_WORKER__CONCURRENCY="3")
    shell.await_health("worker", 0, "run", "--ready")
    assert len(psutil.Process(worker.pid).children()) == children


@pytest.mark.parametrize(("limit", "children"), [("", 1), ("400", 2)])
async def test_a_child_that_has_used_too_much_memory_is_replaced(limit: str, children: int, shell: Shell) -> None:
    """Beyond TEQUIPY_WORKER__MAX_MEMORY_PER_CHILD a child is replaced after its task; without it, it is not."""
    shell.start("relay", "relay")
    shell.start("worker", "run", "--concurrency", "1", TEQUIPY_WORKER__MAX_MEMORY_PER_CHILD=limit)
    for number, mebibytes in enumerate([1, 500, 1], start=1):
        await shell.add("test.grow", mebibytes=mebibytes)
        shell.await_events("finished", number)
    first, large, last = (event["pid"] for event in shell.events("finished"))
    assert first == large, "a child within the limit is kept"
    assert len({first, last}) == children
