"""The command line of the worker: run, beat, relay, health and settings, and the commands for messages.

Each command imports what it needs, because importing the whole app takes longer than reporting wrong settings.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import click

from tequipy_observability.wiring import Observability, configure_observability
from tequipy_platform.database import refuse_wrong_encoding
from tequipy_platform.settings import describe_settings, load_settings, refuse, refuse_missing_folder, variable_of
from tequipy_worker.message_commands import dead_letters, messages
from tequipy_worker.settings import WorkerSettings
from tequipy_worker.state import MULTIPROCESS, ForeignFolderError, claim_folder, empty_folder


@click.group()
@click.pass_context
def main(context: click.Context) -> None:
    """Run and monitor Tequipy's background processes.

    Settings come from TEQUIPY_* variables and .env; a wrong one ends any command with status 78 and one line per fault.
    """
    if context.invoked_subcommand != "run":  # `run` creates its own folder
        refuse_missing_folder(MULTIPROCESS)


main.add_command(messages)
main.add_command(dead_letters)


@main.command()
def run() -> None:
    """Run tasks: a parent process receives messages, child processes run them."""
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
    from tequipy_worker.app import create_worker  # noqa: PLC0415 -- after the settings, so that wrong ones are reported at once
    from tequipy_worker.catalogue import QUEUES  # noqa: PLC0415 -- as above

    metrics = empty_folder(_state_folder(settings) / "metrics")
    os.environ[MULTIPROCESS] = str(metrics)  # each process reads it when it first counts
    observability = _observe(settings, "worker", metrics_folder=metrics)
    worker = create_worker(settings, observability).Worker(
        pool_cls="prefork",
        concurrency=settings.worker.concurrency,
        queues=QUEUES,
        # Workers need no messages from each other: no logical clocks, leader elections or synchronisation at start.
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


@main.command()
def beat() -> None:
    """Add a message to the outbox for each scheduled task that is due; run any number of processes."""
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
    asyncio.run(_beat(settings))


async def _beat(settings: WorkerSettings) -> None:
    from tequipy_worker.app import open_scheduler  # noqa: PLC0415 -- as above

    async with open_scheduler(settings, _observe(settings, "beat")) as running:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, running.stop)
        await running.run()


@main.command()
def relay() -> None:
    """Publish the outbox to the broker; run any number of processes."""
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
    asyncio.run(_relay(settings))


async def _relay(settings: WorkerSettings) -> None:
    from tequipy_worker.app import open_relay  # noqa: PLC0415 -- as above

    async with open_relay(settings, _observe(settings, "relay")) as running:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, running.stop)
        await running.run()


def _observe(settings: WorkerSettings, service: str, *, metrics_folder: Path | None = None) -> Observability:
    return configure_observability(
        settings.observability,
        service=service,
        environment=settings.environment,
        version=settings.app_version,
        metrics_folder=metrics_folder,
        metrics_port_name=variable_of(WorkerSettings, ("observability", "metrics_port")),
    )


def _state_folder(settings: WorkerSettings) -> Path:
    try:
        return claim_folder(settings.worker.state_folder)
    except ForeignFolderError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        refuse([f"{variable_of(WorkerSettings, ('worker', 'state_folder'))}: cannot be used: {error.strerror}"])


@main.command()
def health() -> None:
    """Exit with status 0 if the worker of this machine runs, with 1 if it hangs or does not run."""
    file = load_settings(WorkerSettings).worker.heartbeat_file
    from tequipy_worker.heartbeat import is_alive  # noqa: PLC0415 -- as above

    if not is_alive(file):
        raise click.ClickException(f"the worker has not touched {file} lately")


@main.command("settings")
@click.option("--check", is_flag=True, help="Print nothing; status 78 for any unknown name, exported ones included.")
def show_settings(check: bool) -> None:  # noqa: FBT001 -- click passes it by position
    """Print the effective settings with masked secrets."""
    settings = load_settings(WorkerSettings, strict=check)
    for line in () if check else describe_settings(settings):
        click.echo(line)
