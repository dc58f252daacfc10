"""The command line of the worker: run, beat, relay, health and settings, and commands for messages, mails, activity.

Each command imports what it needs, because importing the whole app takes longer than reporting wrong settings.
"""

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click

from tequipy_observability.wiring import Observability, configure_observability
from tequipy_platform.database import refuse_wrong_encoding
from tequipy_platform.mail import refuse_broken_templates
from tequipy_platform.settings import (
    describe_settings,
    explain_settings,
    load_settings,
    refuse,
    refuse_missing_folder,
    variable_of,
)
from tequipy_worker import probe
from tequipy_worker.activity_commands import rebuild_activity
from tequipy_worker.mail_commands import mail_preview
from tequipy_worker.message_commands import dead_letters, messages
from tequipy_worker.probe import READY_OPTION
from tequipy_worker.settings import WorkerSettings
from tequipy_worker.state import (
    KINDS,
    MULTIPROCESS,
    UnusableFolderError,
    children_folder,
    claimed_folder,
    empty_folder,
    heartbeat_file,
)

EXIT_WITHIN: Final = 24.0
"""Seconds after its stop signal at which a relay or a scheduler ends, whatever it waits for."""


@click.group()
@click.version_option(package_name="tequipy-worker", prog_name="tequipy-worker")
@click.pass_context
def main(context: click.Context) -> None:
    """Run and monitor Tequipy's background processes.

    Settings come from TEQUIPY_* variables and .env; a wrong one ends any command with status 78 and one line per fault.
    """
    if context.invoked_subcommand != "run":  # `run` creates its own folder
        refuse_missing_folder(MULTIPROCESS)


main.add_command(messages)
main.add_command(dead_letters)
main.add_command(mail_preview)
main.add_command(rebuild_activity)


@main.command()
@click.option("--queues", help="Consume these queues only, separated by commas; all by default.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Overrides TEQUIPY_WORKER__CONCURRENCY.")
def run(queues: str | None, concurrency: int | None) -> None:
    """Run tasks: a parent process receives messages, child processes run them."""
    settings = load_settings(WorkerSettings)
    from tequipy_worker.catalogue import MAIL_PACKAGES, QUEUES  # noqa: PLC0415 -- after the settings, so that wrong ones are reported at once

    selected = _select_queues(queues, QUEUES)
    refuse_broken_templates(settings.mail, MAIL_PACKAGES, variable=variable_of(WorkerSettings, ("mail", "templates")))
    with _claimed(settings, "run") as folder:
        from tequipy_worker.heartbeat import ParentHeartbeat  # noqa: PLC0415 -- as above

        heartbeat = ParentHeartbeat(heartbeat_file(folder))
        heartbeat.start()
        refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
        from tequipy_platform.messaging.celery import run_worker  # noqa: PLC0415 -- as above
        from tequipy_worker.worker import create_worker  # noqa: PLC0415 -- as above

        empty_folder(children_folder(folder))
        metrics = empty_folder(folder / "metrics")
        os.environ[MULTIPROCESS] = str(metrics)  # each process reads it when it first counts
        observability = _observe(settings, "worker", metrics_folder=metrics)
        celery = create_worker(settings, observability)
        heartbeat.wire(celery, observability)
        gc.freeze()  # child processes share these objects with their parent as long as no collection marks them
        status = run_worker(
            celery,
            queues=selected,
            concurrency=concurrency or settings.worker.concurrency,
            max_memory=settings.worker.max_memory_per_child,
            patience=settings.celery.soft_shutdown_timeout,
        )
    logging.shutdown()
    os._exit(status)  # at once: at its end the interpreter would wait for threads and clean-ups, which may hang


def _select_queues(queues: str | None, known: Sequence[str]) -> Sequence[str]:
    if queues is None:
        return known
    selected = [name.strip() for name in queues.split(",") if name.strip()]
    unknown = [name for name in selected if name not in known]
    if unknown or not selected:
        raise click.BadParameter(
            f"no queue is named {', '.join(unknown) or queues!r}; there are {', '.join(known)}", param_hint="--queues"
        )
    return selected


@main.command()
def beat() -> None:
    """Add a message to the outbox for each scheduled task that is due; run any number of processes."""
    settings = load_settings(WorkerSettings)
    with _claimed(settings, "beat") as folder:
        refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
        asyncio.run(_beat(settings, folder))


async def _beat(settings: WorkerSettings, folder: Path) -> None:
    from tequipy_worker.heartbeat import DATABASE, Heartbeat  # noqa: PLC0415 -- as above
    from tequipy_worker.scheduler import open_scheduler  # noqa: PLC0415 -- as above

    heartbeat = Heartbeat(heartbeat_file(folder), DATABASE)
    async with open_scheduler(settings, _observe(settings, "beat"), heartbeat) as running:
        _handle_stop_signals(running.stop)
        await running.run()


@main.command()
def relay() -> None:
    """Publish the outbox to the broker; run any number of processes."""
    settings = load_settings(WorkerSettings)
    with _claimed(settings, "relay") as folder:
        refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
        asyncio.run(_relay(settings, folder))


async def _relay(settings: WorkerSettings, folder: Path) -> None:
    from tequipy_worker.heartbeat import BROKER, DATABASE, Heartbeat  # noqa: PLC0415 -- as above
    from tequipy_worker.relay import open_relay  # noqa: PLC0415 -- as above

    heartbeat = Heartbeat(heartbeat_file(folder), BROKER, DATABASE)
    async with open_relay(settings, _observe(settings, "relay"), heartbeat) as running:
        _handle_stop_signals(running.stop)
        await running.run()


def _handle_stop_signals(stop: Callable[[], None]) -> None:
    """Stop a relay or a scheduler at a signal, and end its process soon after, whatever it waits for."""

    def on_signal() -> None:
        stop()
        timer = threading.Timer(EXIT_WITHIN, os._exit, [os.EX_TEMPFAIL])
        timer.daemon = True
        timer.start()

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, on_signal)


def _observe(settings: WorkerSettings, service: str, *, metrics_folder: Path | None = None) -> Observability:
    return configure_observability(
        settings.observability,
        service=service,
        environment=settings.environment,
        version=settings.app_version,
        metrics_folder=metrics_folder,
        metrics_port_name=variable_of(WorkerSettings, ("observability", "metrics_port")),
    )


@contextmanager
def _claimed(settings: WorkerSettings, kind: str) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(claimed_folder(settings.worker.state_folder, kind))
        except UnusableFolderError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            refuse([f"{variable_of(WorkerSettings, ('worker', 'state_folder'))}: cannot be used: {error.strerror}"])
        yield folder


@main.command()
@click.argument("processes", nargs=-1, type=click.Choice(KINDS))
@click.option(READY_OPTION, "ready", is_flag=True, help="Also require that broker and database answer.")
def health(processes: tuple[str, ...], ready: bool) -> None:  # noqa: FBT001 -- click passes it by position
    """Exit with status 0 if the processes of this state folder work: those named, or all that run.

    Status 1 and one line for each process that hangs or does not run. Reads TEQUIPY_WORKER__STATE_FOLDER alone.
    """
    probe.main([*processes, *([READY_OPTION] if ready else [])])


@main.command("settings")
@click.option("--check", is_flag=True, help="Print nothing; status 78 for any unknown name, exported ones included.")
@click.option("--explain", is_flag=True, help="Also print where each value comes from, its type, default and meaning.")
def show_settings(check: bool, explain: bool) -> None:  # noqa: FBT001 -- click passes them by position
    """Print the settings in force with masked secrets."""
    settings = load_settings(WorkerSettings, strict=check)
    lines = explain_settings(settings) if explain else describe_settings(settings)
    if not check:
        for line in lines:
            click.echo(line)
        each = settings.database.max_connections
        children = settings.worker.concurrency
        click.echo(
            f"# Connections to PostgreSQL of each process: run at most {children * each} ({children} children"
            f" of {each}), beat at most {each}, relay at most {each + 1} (one listens)."
        )
