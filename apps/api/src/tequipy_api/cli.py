"""The command line of the API: serve, health, migrate, create an admin, rotate keys, show settings and routes.

Each command imports what it needs, because importing the whole app takes longer than reporting wrong settings.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import click

from tequipy_api import probe
from tequipy_api.catalogue import PERMISSIONS
from tequipy_api.settings import ApiSettings
from tequipy_api.start_check import unusable_keys_line
from tequipy_auth import Auth, KeyService, KeyUnusable, Role, UnknownKey, WeakPassword
from tequipy_auth.wiring import build_auth
from tequipy_caching.wiring import build_cache
from tequipy_platform import DomainError
from tequipy_platform.database import Database, build_database, refuse_wrong_encoding
from tequipy_platform.http import build_http_clients
from tequipy_platform.settings import (
    describe_settings,
    explain_settings,
    load_settings,
    refuse_missing_folder,
    variable_of,
)


@click.group()
@click.version_option(package_name="tequipy-api", prog_name="tequipy-api")
def main() -> None:
    """Serve and administer the Tequipy API.

    Settings come from TEQUIPY_* variables and .env; a wrong one ends any command with status 78 and one line per fault.
    """
    refuse_missing_folder("PROMETHEUS_MULTIPROC_DIR")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes any free one."
)
def serve(host: str, port: int) -> None:
    """Serve the API in one process; start more processes to scale."""
    settings = load_settings(ApiSettings)
    _refuse_wrong_encoding(settings)
    gc.disable()  # until the app is complete: all that is imported and built lives as long as the process
    from tequipy_api import server  # noqa: PLC0415 -- after the settings, so that wrong ones are reported at once

    server.serve(settings, host=host, port=port)


@main.command()
@click.option(
    probe.PORT_OPTION,
    default=probe.DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="The port of `serve`.",
)
@click.option(probe.READY_OPTION, "ready", is_flag=True, help="Also require that it can serve: database, schema.")
def health(port: int, ready: bool) -> None:  # noqa: FBT001 -- click passes it by position
    """Exit with status 0 if the API on this machine answers, and with 1 and one line otherwise. Reads no settings."""
    probe.main([probe.PORT_OPTION, str(port), *([probe.READY_OPTION] if ready else [])])


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def migrate(command: tuple[str, ...]) -> None:
    """Run COMMAND on the history of every package, in order.

    \b
    upgrade [REVISION]      to a revision, by default to head
    downgrade REVISION      base, -1 or a revision; in reverse order
    check                   status 1 if models and histories differ
    current, history        the revision of the database, all revisions

    --schema NAME restricts it to one package's schema.
    """  # noqa: D301 -- click's mark for text that keeps its line breaks
    database = load_settings(ApiSettings).database
    from tequipy_api.histories import HISTORIES  # noqa: PLC0415 -- as above
    from tequipy_platform.database.migrations import MigrationFailed  # noqa: PLC0415 -- as above
    from tequipy_platform.database.migrations import migrate as run_migrations  # noqa: PLC0415 -- as above

    try:
        run_migrations(database, HISTORIES, command)
    except MigrationFailed as error:
        hint = f" ({variable_of(ApiSettings, ('database', error.setting))})" if error.setting else ""
        raise click.ClickException(f"{error}{hint}") from error


@main.command("create-admin")
@click.option("--email", required=True, help="The address, which counts as verified.")
@click.option("--name", help="The display name.")
def create_admin(email: str, name: str | None) -> None:
    """Create an administrator; the password is read from standard input, or prompted for at a terminal."""
    settings = load_settings(ApiSettings)
    _refuse_wrong_encoding(settings)
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        asyncio.run(_create_admin(settings, email=email, password=password, name=name))
    except WeakPassword as error:
        raise click.ClickException(f"{error.detail} ({', '.join(error.reasons)})") from error
    except DomainError as error:
        raise click.ClickException(error.detail) from error
    click.echo(f"{email} is an administrator.")


async def _create_admin(settings: ApiSettings, *, email: str, password: str, name: str | None) -> None:
    async with _open_auth(settings) as auth:
        await auth.registration.create_admin(email=email, password=password, name=name)


@asynccontextmanager
async def _open_auth(settings: ApiSettings, *, with_cache: bool = False) -> AsyncIterator[Auth]:
    """Open the auth service of a command; `with_cache` connects to Redis too, to notify running processes."""
    database, cache = build_database(settings.database), build_cache(settings.cache)
    http = build_http_clients(settings.http, app_name=settings.app_name, app_version=settings.app_version)
    auth = build_auth(
        settings.auth,
        environment=settings.environment,
        public_url=settings.public_url,
        database=database,
        cache=cache,
        http=http,
        permissions=PERMISSIONS,
    )
    async with database, cache if with_cache else nullcontext(), http, auth:
        await _refuse_old_schema(database)
        yield auth


@main.group()
def keys() -> None:
    """Manage the keys that sign access tokens."""


@keys.command("list")
def list_keys() -> None:
    """Print every key, oldest first: id, algorithm, state, time of its state, and version of its encryption key."""

    async def show(service: KeyService) -> None:
        for key in await service.keys():
            since = f"{key.state_changed_at:%Y-%m-%d %H:%M:%S}"
            version = key.encryption_version or "-"
            click.echo(
                f"{key.kid}  {key.algorithm}  {key.state.value:8}  since {since} UTC  key-encryption key {version}"
            )

    _with_keys(show)


@keys.command()
def rotate() -> None:
    """Activate the next signing key and publish a new next one; running processes reload the keys."""

    async def perform(service: KeyService) -> None:
        click.echo(f"{await service.rotate()} signs from now on.")

    _with_keys(perform)


# One key id in 64 begins with a hyphen, so unknown options are passed on as arguments.
@keys.command(context_settings={"ignore_unknown_options": True})
@click.argument("kid", type=click.UNPROCESSED)
def revoke(kid: str) -> None:
    """Revoke key KID: all processes refuse its tokens at once, and their clients must refresh."""

    async def perform(service: KeyService) -> None:
        await service.revoke(kid)
        click.echo(f"{kid} is revoked.")

    _with_keys(perform)


@keys.command("reseal")
def reencrypt() -> None:
    """Encrypt every key under the newest version of TEQUIPY_AUTH__KEY_ENCRYPTION_KEY.

    Configure that version in all running processes first, because each reloads the keys within a minute.
    """

    async def perform(service: KeyService) -> None:
        renewed = await service.reencrypt()
        for kid in renewed:
            click.echo(f"{kid} is encrypted under the newest key.")
        if not renewed:
            click.echo("Every key is encrypted under the newest key already.")

    _with_keys(perform)


@main.group()
def roles() -> None:
    """Manage the roles that grant permissions."""


@roles.command("list")
def list_roles() -> None:
    """Print every role with its permissions, then every permission with its meaning."""

    async def show(auth: Auth) -> None:
        for role in (await auth.roles.all()).roles:
            click.echo(f"{role.name}: {' '.join(role.permissions) or '-'}")
        click.echo()
        for permission in auth.roles.permissions:
            click.echo(f"{permission.name}  {permission.description}")

    _with_auth(show)


@roles.command("set")
@click.argument("name")
@click.argument("permissions", nargs=-1)
def set_role(name: str, permissions: tuple[str, ...]) -> None:
    """Make or change the role NAME, which then has exactly these PERMISSIONS; running processes use it at once."""

    async def perform(auth: Auth) -> None:
        try:
            role = Role(name, permissions)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        await auth.roles.define(role)
        click.echo(f"{name}: {' '.join(sorted(permissions)) or '-'}")

    _with_auth(perform)


@roles.command("delete")
@click.argument("name")
def delete_role(name: str) -> None:
    """Delete the role NAME, which no account may have."""

    async def perform(auth: Auth) -> None:
        await auth.roles.delete(name)
        click.echo(f"{name} is deleted.")

    _with_auth(perform)


def _with_auth(action: Callable[[Auth], Awaitable[None]]) -> None:
    settings = load_settings(ApiSettings)
    _refuse_wrong_encoding(settings)

    async def run() -> None:
        async with _open_auth(settings, with_cache=True) as auth:
            await action(auth)

    try:
        asyncio.run(run())
    except (KeyUnusable, UnknownKey):
        raise  # `_with_keys` says what to do
    except DomainError as error:
        raise click.ClickException(error.detail) from error


def _with_keys(action: Callable[[KeyService], Awaitable[None]]) -> None:
    async def run(auth: Auth) -> None:
        if auth.keys is None:
            raise click.ClickException("The signing keys are the files in TEQUIPY_AUTH__SIGNING_KEYS_FOLDER.")
        await action(auth.keys)

    try:
        _with_auth(run)
    except KeyUnusable as error:
        raise click.ClickException(unusable_keys_line(error)) from error
    except UnknownKey as error:
        raise click.ClickException(f"{error.detail} `tequipy-api keys list` shows all.") from error


def _refuse_wrong_encoding(settings: ApiSettings) -> None:
    refuse_wrong_encoding(settings.database, variable=variable_of(ApiSettings, ("database", "url")))


async def _refuse_old_schema(database: Database) -> None:
    from tequipy_api.histories import HISTORIES  # noqa: PLC0415 -- as above
    from tequipy_platform.database.migrations import SchemaBehind, build_schema_check  # noqa: PLC0415 -- as above

    try:
        await build_schema_check(database, HISTORIES)()
    except SchemaBehind as error:
        raise click.ClickException(f"The database is behind: {error}.") from error
    except Exception:  # noqa: BLE001, S110 -- the next use of the database reports the error
        pass


@main.command("settings")
@click.option("--check", is_flag=True, help="Print nothing; status 78 for any unknown name, exported ones included.")
@click.option("--explain", is_flag=True, help="Also print where each value comes from, its type, default and meaning.")
def show_settings(check: bool, explain: bool) -> None:  # noqa: FBT001 -- click passes them by position
    """Print the settings in force with masked secrets."""
    settings = load_settings(ApiSettings, strict=check)
    lines = explain_settings(settings) if explain else describe_settings(settings)
    if not check:
        for line in lines:
            click.echo(line)
        click.echo(f"# Connections to PostgreSQL of each process: at most {settings.database.max_connections}.")


@main.command()
@click.option(
    "--check",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Print nothing; status 1 if FILE differs.",
)
def openapi(file: Path | None) -> None:
    """Print the OpenAPI document, which depends on the code alone and needs no settings."""
    from tequipy_api.contract import openapi_document  # noqa: PLC0415 -- as above

    document = openapi_document()
    if file is None:
        click.echo(document, nl=False)
    elif file.read_text(encoding="utf-8") != document:
        raise click.ClickException(f"{file} differs from the code; renew it: tequipy-api openapi > {file}")


@main.command()
def routes() -> None:
    """Print each route, and whether it is served by compiled code or by FastAPI, and why; needs no settings."""
    from tequipy_api.contract import route_lines  # noqa: PLC0415 -- as above

    for line in route_lines():
        click.echo(line)
