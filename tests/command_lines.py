"""Whether the command lines of the apps accept a command that a document or a manifest names."""

from collections.abc import Sequence

import click

from tequipy_api.cli import main as api_command
from tequipy_worker.cli import main as worker_command

PROGRAMS: dict[str, click.Command] = {"tequipy-api": api_command, "tequipy-worker": worker_command}


def check_command(words: Sequence[str]) -> None:
    """Raise an error of click if the program, its subcommands or their options do not exist; nothing is run."""
    program, *rest = words
    command = PROGRAMS[program]
    context = click.Context(command)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"no command {rest[0]}: {' '.join(words)}")
        command, rest = found, rest[1:]
    command.make_context(" ".join(words), rest, resilient_parsing=False)
