"""The command that counts the daily activity again."""

import asyncio
from datetime import date, datetime, timedelta

import click

from tequipy_platform import DomainError
from tequipy_platform.database import refuse_wrong_encoding
from tequipy_platform.settings import load_settings, variable_of
from tequipy_worker.settings import WorkerSettings


@click.command("rebuild-activity")
@click.option(
    "--since", required=True, type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The first day, in UTC."
)
def rebuild_activity(since: datetime) -> None:
    """Count the activity of each day from DATE to today again from the audit, while the worker runs or not.

    Each day is stored when it is counted: after an interruption continue with the day that the message names. Days that
    the audit no longer holds stay as they are.
    """
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))
    counted: dict[date, bool] = {}
    try:
        asyncio.run(_rebuild(settings, since.date(), counted))
    except (DomainError, KeyboardInterrupt) as error:
        following = max(counted) + timedelta(days=1) if counted else since.date()
        reason = error.detail if isinstance(error, DomainError) else "Interrupted."
        raise click.ClickException(f"{reason} Continue with --since {following}.") from error
    kept = [day for day, stored in counted.items() if not stored]
    click.echo(f"{len(counted) - len(kept)} days counted")
    for day in kept:
        click.echo(f"{day} is kept: the audit holds fewer events than were counted", err=True)


async def _rebuild(settings: WorkerSettings, since: date, counted: dict[date, bool]) -> None:
    from tequipy_worker.app import open_reporting  # noqa: PLC0415 -- after the settings, so that wrong ones are reported at once

    async with open_reporting(settings) as reporting:
        countable = reporting.activity.countable()
        if not countable.first_day <= since <= countable.last_day:
            raise click.BadParameter(
                f"should be from {countable.first_day}, the first whole day in the audit, to {countable.last_day}; "
                "earlier days stay as they are",
                param_hint="--since",
            )
        days = [since + timedelta(days=n) for n in range((countable.last_day - since).days + 1)]
        with click.progressbar(days, label="Counting days", item_show_func=str) as bar:
            for day in bar:
                counted[day] = await reporting.activity.recount(day)
