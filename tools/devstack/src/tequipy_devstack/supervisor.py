"""Runs programs: prefixes their output, restarts them when they die or their sources change, and ends them all."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from watchfiles import awatch

from tequipy_devstack.processes import family, kill, tied

_COLOURS = (36, 32, 33, 35, 34, 31)  # ANSI foreground colours
_LINE_BYTES = 2**20
_NAME_WIDTH = 8


@dataclass(frozen=True)
class Program:
    """A command line, the name that prefixes its output, and variables in addition to those of the supervisor."""

    name: str
    command: Sequence[str | Path]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delays:
    """Times of the supervisor in seconds."""

    grace: float = 10
    """The time between SIGTERM and SIGKILL."""
    first_pause: float = 0.5
    """The pause before a program that died is restarted; doubled each time it dies again soon."""
    longest_pause: float = 10
    healthy: float = 20
    """A program that ran this long gets the first pause again."""


class Supervisor:
    """Runs programs until it is cancelled; a second cancellation kills those that have not ended."""

    def __init__(self, environment: Mapping[str, str], *, delays: Delays | None = None) -> None:
        self._environment = dict(environment)
        self._delays = delays or Delays()
        self._names: list[str] = []
        self._changed: list[asyncio.Event] = []

    def say(self, name: str, line: str) -> None:
        """Print one line with the prefix `name`, coloured on a terminal."""
        if name not in self._names:
            self._names.append(name)
        prefix = f"{name:<{_NAME_WIDTH}}| "
        if sys.stdout.isatty():
            prefix = f"\x1b[{_COLOURS[self._names.index(name) % len(_COLOURS)]}m{prefix}\x1b[0m"
        try:
            print(prefix + line, flush=True)
        except BrokenPipeError:
            # The reader of the output has disconnected: continue without output until the stack ends.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- open until the process ends
            signal.raise_signal(Signals.SIGHUP)

    async def once(self, program: Program) -> int:
        """Run a program to its end and return its exit status."""
        process = await self._start(program)
        try:
            await self._print_lines(program, process)
            return await process.wait()
        finally:
            await self._end(process)

    async def succeeds(self, program: Program) -> bool:
        """Run a program without showing its output; return whether its exit status is 0."""
        process = await self._start(program)
        try:
            await process.communicate()
        finally:
            await self._end(process)
        return process.returncode == 0

    async def keep(self, program: Program) -> None:
        """Run a program and restart it whenever it dies or `reload` sees a change, until cancelled."""
        changed = asyncio.Event()
        self._changed.append(changed)
        clock = asyncio.get_running_loop().time
        pause = self._delays.first_pause
        while True:
            changed.clear()
            started, process = clock(), await self._start(program)
            printer = asyncio.create_task(self._print_lines(program, process))
            try:
                await _first(_death(process), changed.wait())
            finally:
                # Its descendants are ended too, even if it died without ending them.
                await self._end(process)
                await _first(printer, asyncio.sleep(1))
            if changed.is_set():
                pause = self._delays.first_pause
                continue
            if clock() - started > self._delays.healthy:
                pause = self._delays.first_pause
            self.say(program.name, f"ended with status {process.returncode}; starts again in {pause:g} s")
            await _first(changed.wait(), asyncio.sleep(pause))
            pause = min(2 * pause, self._delays.longest_pause)

    async def reload(self, *folders: Path) -> None:
        """Restart all programs whenever a file in the folders changes, until cancelled."""
        if not folders:
            return
        async for changes in awatch(*folders, debounce=400):
            files = sorted({Path(path).name for _, path in changes})
            self.say("stack", f"{', '.join(files[:3])} changed: everything starts again")
            for changed in self._changed:
                changed.set()

    async def announce(self, ready: Callable[[], Awaitable[bool]], lines: Sequence[str]) -> None:
        """Print the lines as soon as `ready`, called twice a second, returns True."""
        while not await ready():  # noqa: ASYNC110 -- other processes do not notify this one
            await asyncio.sleep(0.5)
        for line in lines:
            self.say("stack", line)

    async def _start(self, program: Program) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *tied(program.command, death_signal=Signals.SIGTERM),
            env={**self._environment, **program.variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            process_group=0,
        )

    async def _print_lines(self, program: Program, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 -- it is a pipe; for the type checker
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
        """End a program and its descendants: by SIGTERM, and by SIGKILL after the grace or when cancelled again."""
        members = family(process.pid) if process.returncode is None else []
        try:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(_death(process), self._delays.grace)
        except TimeoutError:
            pass
        finally:
            kill(members)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, Signals.SIGKILL)
            await _death(process)  # otherwise asyncio would warn of a running program


async def _death(process: asyncio.subprocess.Process) -> None:
    """Wait for a process's end; asyncio's `wait` would also wait for orphans that hold its output open."""
    while process.returncode is None:  # noqa: ASYNC110 -- as the docstring explains
        await asyncio.sleep(0.05)


async def _first(*awaitables: Awaitable[object]) -> None:
    """Wait until one of the awaitables is done, and cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
