"""`tequipy-worker` with a few tasks of the tests, started as `shell_program.py run …`; events go to $EVENTS."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tequipy_platform import Delivery, Task

SLEEP: Final = Task("test.sleep")
MAIL: Final = Task("test.mail", queue="email")
BLOCK: Final = Task("test.block")
GROW: Final = Task("test.grow")
TASKS: Final = (SLEEP, MAIL, BLOCK, GROW)


def note(event: str, delivery: Delivery, **facts: object) -> None:
    """Append an event as a line of JSON."""
    line = json.dumps({"event": event, "id": str(delivery.id), "pid": os.getpid(), **facts})
    with Path(os.environ["EVENTS"]).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


async def sleep(delivery: Delivery, *, seconds: float) -> None:
    """Wait without blocking the event loop."""
    note("started", delivery, parent=os.getppid())
    await asyncio.sleep(seconds)
    note("finished", delivery)


async def block(delivery: Delivery, *, seconds: float) -> None:
    """Block the event loop."""
    note("started", delivery, parent=os.getppid())
    time.sleep(seconds)  # noqa: ASYNC251 -- the fault that the probe detects
    note("finished", delivery)


async def grow(delivery: Delivery, *, mebibytes: int) -> None:
    """Use that much memory, and release it."""
    memory = bytearray(mebibytes * 2**20)
    memory[::4096] = b"x" * len(memory[::4096])
    note("finished", delivery)


HANDLERS: Final[Mapping[Task, Callable[..., Coroutine[Any, Any, None]]]] = {
    SLEEP: sleep,
    MAIL: sleep,
    BLOCK: block,
    GROW: grow,
}


def add_tasks() -> None:
    """Add the tasks to the worker's catalogue and its handlers."""
    from tequipy_worker import catalogue  # noqa: PLC0415 -- before the app reads it

    catalogue.TASKS = (*catalogue.TASKS, *TASKS)  # type: ignore[misc]  # -- replaced for the tests
    from tequipy_worker import app  # noqa: PLC0415 -- as above

    build = app.build_runtime

    def build_runtime(*arguments: Any, **options: Any) -> Any:
        runtime = build(*arguments, **options)
        return replace(runtime, handlers={**runtime.handlers, **HANDLERS})

    app.build_runtime = build_runtime


def hang(*_: object) -> None:
    """Keep the main thread busy."""
    time.sleep(3600)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, hang)
    if sys.argv[1] == "run":
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = "(see tequipy_worker.cli)"
    add_tasks()
    from tequipy_worker import cli

    cli.main()
