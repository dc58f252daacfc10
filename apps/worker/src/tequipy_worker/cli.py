"""The command line of the worker: run, beat, relay, and the probes of operators.

What a command needs is imported by the command: loading the whole app takes longer than refusing wrong settings.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import click

from tequipy_observability.wiring import Observability, configure_observability
from tequipy_platform.wiring import (
    build_database,
    build_unpublished_messages,
    describe_settings,
    load_settings,
    refuse,
    refuse_missing_folder,
    refuse_wrong_encoding,
)
from tequipy_worker.__main__ import MULTIPROCESS
from tequipy_worker.settings import WorkerSettings
from tequipy_worker.state import ForeignFolderError, claim_folder, empty_folder


@click.group()
@click.pass_context
def main(context: click.Context) -> None:
    """Run and watch Tequipy's background processes.

    Settings come from TEQUIPY_* variables and .env; a wrong one ends any command with status 78 and a line a fault.
    """
    if context.invoked_subcommand != "run":  # which names a folder of its own
        refuse_missing_folder(MULTIPROCESS)


@main.command()
def run() -> None:
    """Run tasks: one parent that takes messages, child processes that work."""
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database)
    from tequipy_platform.celery import QUEUES  # noqa: PLC0415 -- the settings first: a wrong one is told at once
    from tequipy_worker.app import create_worker  # noqa: PLC0415 -- as above

    metrics = empty_folder(_state_folder(settings) / "metrics")
    os.environ[MULTIPROCESS] = str(metrics)  # read by each process when it counts for the first time
    observability = _observe(settings, "worker", metrics_folder=metrics)
    worker = create_worker(settings, observability).Worker(
        pool_cls="prefork",
        concurrency=settings.worker.concurrency,
        queues=QUEUES,
        # Nobody listens to what workers tell each other: they need no clocks, no elections, no greetings.
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


@main.command()
def beat() -> None:
    """Send the scheduled tasks when they are due; one process."""
    settings = load_settings(WorkerSettings)
    from tequipy_worker.app import create_worker  # noqa: PLC0415 -- as above

    # The schedule is pickled: whoever writes it decides what beat runs.
    schedule = _state_folder(settings) / "schedule"
    celery = create_worker(settings, _observe(settings, "beat"))
    celery.Beat(schedule=str(schedule), quiet=True).run()


@main.command()
def relay() -> None:
    """Publish the outbox to the broker; any number of processes."""
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database)
    asyncio.run(_relay(settings))


async def _relay(settings: WorkerSettings) -> None:
    from tequipy_platform.celery import build_relay  # noqa: PLC0415 -- as above
    from tequipy_worker.app import create_worker  # noqa: PLC0415 -- as above

    observability = _observe(settings, "relay")
    celery = create_worker(settings, observability)
    database = build_database(settings.database)
    messages = build_unpublished_messages(
        database,
        redelivery=timedelta(seconds=settings.celery.visibility_timeout),
        registry=observability.registry,
    )
    async with observability, database, messages, build_relay(celery, messages) as running:
        for ending in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(ending, running.stop)
        await running.run()


def _observe(settings: WorkerSettings, service: str, *, metrics_folder: Path | None = None) -> Observability:
    return configure_observability(
        settings.observability,
        service=service,
        environment=settings.environment,
        version=settings.app_version,
        metrics_folder=metrics_folder,
    )


def _state_folder(settings: WorkerSettings) -> Path:
    try:
        return claim_folder(settings.worker.state_folder)
    except ForeignFolderError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        refuse([f"TEQUIPY_WORKER__STATE_FOLDER: cannot be used: {error.strerror}"])


@main.command()
def health() -> None:
    """End with status 0 while the worker of this machine runs, with 1 when it hangs or is gone."""
    file = load_settings(WorkerSettings).worker.heartbeat_file
    from tequipy_worker.heartbeat import is_alive  # noqa: PLC0415 -- as above

    if not is_alive(file):
        raise click.ClickException(f"the worker has not touched {file} lately")


@main.command("settings")
@click.option("--check", is_flag=True, help="Print nothing; status 78 for any unknown name, also an exported one.")
def show_settings(check: bool) -> None:  # noqa: FBT001 -- click's
    """Print the settings in force, secrets masked."""
    settings = load_settings(WorkerSettings, strict=check)
    for line in () if check else describe_settings(settings):
        click.echo(line)
