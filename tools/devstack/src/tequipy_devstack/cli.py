"""The command line: `tequipy-devstack run` is `make dev`, `tequipy-devstack admin` is `make admin`."""

import click

from tequipy_devstack.processes import DevstackError
from tequipy_devstack.stack import Stack, run_admin


@click.group()
def main() -> None:
    """Run Tequipy on this machine, with a PostgreSQL, a Valkey and a mail sink of its own."""


@main.command()
def run() -> None:
    """Run everything until Ctrl-C; its state lives in TEQUIPY_DEV_HOME (.dev), the API at TEQUIPY_DEV_PORT (8000)."""
    try:
        Stack.read().run()
    except DevstackError as error:
        raise click.ClickException(str(error)) from None


# An address may begin with a hyphen (RFC 5322, section 3.2.3).
@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("email", type=click.UNPROCESSED)
def admin(email: str) -> None:
    """Make an admin in the running stack; the password comes from standard input."""
    try:
        run_admin(email)
    except DevstackError as error:
        raise click.ClickException(str(error)) from None
