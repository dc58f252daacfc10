"""The command line: `make dev` is `tequipy-devstack run`, `make admin` is `tequipy-devstack admin`."""

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import click

from tequipy_devstack.new_package import make_package, update_generated_files
from tequipy_devstack.processes import DevstackError
from tequipy_devstack.stack import Stack, run_admin


@click.group()
def main() -> None:
    """Run Tequipy on this machine with its own PostgreSQL, Valkey and mail sink."""


@main.command()
def run() -> None:
    """Run the stack until Ctrl-C; state is in TEQUIPY_DEV_HOME (.dev), the API is on TEQUIPY_DEV_PORT (8000)."""
    try:
        stack = Stack.read()
    except UnicodeDecodeError:
        _refuse(".env: should be UTF-8 text")
    except DevstackError as error:
        _refuse(str(error))
    try:
        stack.home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=stack.home.folder).close()
    except OSError as error:
        _refuse(f"TEQUIPY_DEV_HOME: cannot be written to: {error.strerror}")
    try:
        stack.run()
    except DevstackError as error:
        raise click.ClickException(str(error)) from None


def _refuse(fault: str) -> NoReturn:
    click.echo(fault, err=True)
    sys.exit(os.EX_CONFIG)


# An address may begin with a hyphen (RFC 5322, section 3.2.3).
@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("email", type=click.UNPROCESSED)
def admin(email: str) -> None:
    """Create an admin in the running stack; the password is read from standard input."""
    try:
        run_admin(email)
    except DevstackError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.argument("name")
def new_package(name: str) -> None:
    """Make the feature package NAME, and enter it into the workspace and both apps."""
    try:
        make_package(Path.cwd(), name)
        update_generated_files(Path.cwd(), uv=os.environ.get("UV", "uv"))
    except DevstackError as error:
        raise click.ClickException(str(error)) from None
