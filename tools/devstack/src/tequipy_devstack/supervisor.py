"""Keeps programs running: prefixes their lines, starts them again when they die or change, ends them all."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from watchfiles import awatch

from tequipy_devstack.processes import family, kill, tied

_COLOURS = (36, 32, 33, 35, 34, 31)  # ANSI foreground colours, the restful ones first
_LINE_BYTES = 2**20
_NAME_WIDTH = 8


@dataclass(frozen=True)
class Program:
    """A command line under the name that its lines are prefixed by."""

    name: str
    command: Sequence[str | Path]


@dataclass(frozen=True)
class Patience:
    """Times in seconds."""

    grace: float = 10
    """Between asking a program to end and killing it."""
    first_pause: float = 0.5
    """Before a program that died is started again; doubled each time it dies again soon."""
    longest_pause: float = 10
    healthy: float = 20
    """A program that lived this long has its first pause again."""


class Supervisor:
    """Runs programs until it is cancelled; while it ends them, a second cancellation kills them at once."""

    def __init__(self, environment: Mapping[str, str], *, patience: Patience | None = None) -> None:
        self._environment = dict(environment)
        self._patience = patience or Patience()
        self._names: list[str] = []
        self._changed: list[asyncio.Event] = []

    def say(self, name: str, line: str) -> None:
        """Print one line under the prefix of `name`, coloured on a terminal."""
        if name not in self._names:
            self._names.append(name)
        prefix = f"{name:<{_NAME_WIDTH}}| "
        if sys.stdout.isatty():
            prefix = f"\x1b[{_COLOURS[self._names.index(name) % len(_COLOURS)]}m{prefix}\x1b[0m"
        try:
            print(prefix + line, flush=True)
        except BrokenPipeError:
            # Whoever read our lines has gone: end as when a terminal is closed.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- until we end
            signal.raise_signal(Signals.SIGHUP)

    async def once(self, program: Program) -> int:
        """Run a program to its end and return its exit status."""
        process = await self._start(program)
        try:
            await self._print_lines(program, process)
            return await process.wait()
        finally:
            await self._end(process)

    async def succeeds(self, command: Sequence[str | Path]) -> bool:
        """Run a command, its output unseen, and tell whether it ended with status 0."""
        process = await self._start(Program("", command))
        try:
            await process.communicate()
        finally:
            await self._end(process)
        return process.returncode == 0

    async def keep(self, program: Program) -> None:
        """Run a program, and start it again whenever it dies or `reload` saw a change, until cancelled."""
        changed = asyncio.Event()
        self._changed.append(changed)
        clock = asyncio.get_running_loop().time
        pause = self._patience.first_pause
        while True:
            changed.clear()
            started, process = clock(), await self._start(program)
            printer = asyncio.create_task(self._print_lines(program, process))
            try:
                await _first(_death(process), changed.wait())
            finally:
                # Those it started end with it, also when it did not get to end them itself.
                await self._end(process)
                await _first(printer, asyncio.sleep(1))
            if changed.is_set():
                pause = self._patience.first_pause
                continue
            if clock() - started > self._patience.healthy:
                pause = self._patience.first_pause
            self.say(program.name, f"ended with status {process.returncode}; starts again in {pause:g} s")
            await _first(changed.wait(), asyncio.sleep(pause))
            pause = min(2 * pause, self._patience.longest_pause)

    async def reload(self, *folders: Path) -> None:
        """Start every kept program again whenever a file under the folders changes, until cancelled."""
        if not folders:
            return
        async for changes in awatch(*folders, debounce=400):
            files = sorted({Path(path).name for _, path in changes})
            self.say("stack", f"{', '.join(files[:3])} changed: everything starts again")
            for changed in self._changed:
                changed.set()

    async def announce(self, ready: Callable[[], Awaitable[bool]], lines: Sequence[str]) -> None:
        """Print the lines as soon as `ready` answers True, asking it twice a second."""
        while not await ready():  # noqa: ASYNC110 -- other processes send no event
            await asyncio.sleep(0.5)
        for line in lines:
            self.say("stack", line)

    async def _start(self, program: Program) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *tied(program.command, death_signal=Signals.SIGTERM),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            process_group=0,
        )

    async def _print_lines(self, program: Program, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 -- piped above; for the type checker
        while True:
            try:
                line = await process.stdout.readuntil()
            except asyncio.IncompleteReadError as end:
                line = end.partial
                if not line:
                    return
            except asyncio.LimitOverrunError as overrun:
                line = await process.stdout.readexactly(overrun.consumed)
            self.say(program.name, line.decode(errors="replace").rstrip("\r\n"))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End a program and all it started: by SIGTERM, and what is left after the grace, or at once if cancelled."""
        members = family(process.pid) if process.returncode is None else []
        try:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(_death(process), self._patience.grace)
        except TimeoutError:
            pass
        finally:
            kill(members)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, Signals.SIGKILL)
            await _death(process)  # else asyncio does not know, and complains of a program that it takes for running


async def _death(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process; asyncio's own `wait` lasts until an orphan that holds the pipe has ended, too."""
    while process.returncode is None:  # noqa: ASYNC110 -- see above
        await asyncio.sleep(0.05)


async def _first(*awaitables: Awaitable[object]) -> None:
    """Wait until one of them is done and cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
