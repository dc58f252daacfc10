"""The command line of the worker: run, beat, relay, and the probes of operators."""

import asyncio
import os
import signal
import sys
from datetime import timedelta

import click

from tequipy_platform.celery import QUEUES, build_relay
from tequipy_platform.wiring import build_database, build_pending_messages, describe_settings, load_settings
from tequipy_worker.app import create_worker
from tequipy_worker.heartbeat import is_alive
from tequipy_worker.settings import WorkerSettings


@click.group()
def main() -> None:
    """Run and watch Tequipy's background processes.

    Settings come from TEQUIPY_* variables and .env; a wrong one ends any command with status 78 and a line a fault.
    """


@main.command()
def run() -> None:
    """Run tasks: one parent that takes messages, child processes that work."""
    settings = load_settings(WorkerSettings)
    worker = create_worker(settings).Worker(
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
    folder = settings.worker.state_folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid not in {0, os.geteuid()}:
        # The schedule is pickled: whoever writes it decides what beat runs.
        raise click.ClickException(f"{folder} belongs to another user: set TEQUIPY_WORKER__STATE_FOLDER to your own")
    celery = create_worker(settings, service="beat")
    celery.Beat(schedule=str(folder / "schedule"), quiet=True).run()


@main.command()
def relay() -> None:
    """Publish the outbox to the broker; any number of processes."""
    asyncio.run(_relay(load_settings(WorkerSettings)))


async def _relay(settings: WorkerSettings) -> None:
    celery = create_worker(settings, service="relay")
    database = build_database(settings.database)
    messages = build_pending_messages(database, redelivery=timedelta(seconds=settings.celery.visibility_timeout))
    async with database, messages, build_relay(celery, messages) as running:
        for ending in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(ending, running.stop)
        await running.run()


@main.command()
def health() -> None:
    """End with status 0 while the worker of this machine runs, with 1 when it hangs or is gone."""
    file = load_settings(WorkerSettings).worker.heartbeat_file
    if not is_alive(file):
        raise click.ClickException(f"the worker has not touched {file} lately")


@main.command("settings")
def show_settings() -> None:
    """Print the settings in force, secrets masked."""
    for line in describe_settings(load_settings(WorkerSettings)):
        click.echo(line)
