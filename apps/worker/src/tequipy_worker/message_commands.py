"""The commands for messages: list and show them, retry and discard dead letters."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import click

from tequipy_observability import redacted
from tequipy_platform import DomainError, MessageState
from tequipy_platform.database import build_database, refuse_wrong_encoding
from tequipy_platform.messaging import (
    MessageDetails,
    MessageInspection,
    MessageQuery,
    Repair,
    build_message_inspection,
)
from tequipy_platform.settings import load_settings, variable_of
from tequipy_worker.catalogue import TASKS
from tequipy_worker.settings import WorkerSettings

R = TypeVar("R")
Command = Callable[..., None]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")
_MAX_ERROR: Final = 100
"""The length of an error in a list; `show` prints all of it."""


class Age(click.ParamType[timedelta]):
    """A duration such as 90s, 15m, 1h or 7d."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration."""
        match = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if match is None:
            self.fail("should be a number with a unit, such as 90s, 15m, 1h or 7d", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
_LIMIT = click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="At most so many."
)
_SELECTION = _options(
    click.option("--correlation-id", help="Messages of this request, and of the tasks that it caused."),
    click.option("--task", help="Messages for this task, or events of this name."),
)
_AGES = _options(
    click.option(
        "--older-than", type=Age(), help="Created longer ago (a dead letter: dead for longer) than 90s, 1h, 7d."
    ),
    click.option("--newer-than", type=Age(), help="Created (a dead letter: dead) for less than this."),
)
_ID = click.argument("message_id", metavar="ID", type=click.UUID)
_PAYLOAD = click.option("--payload", "with_payload", is_flag=True, help="Show the payload, without secrets.")


@click.group(invoke_without_command=True)
@_SELECTION
@click.option("--state", type=click.Choice([state.value for state in MessageState]), help="Messages in this state.")
@click.option("--queue", help="Messages in this queue, or meant for it.")
@_AGES
@_LIMIT
@_AS_JSON
@click.pass_context
def messages(context: click.Context, /, *, limit: int, as_json: bool, **conditions: Any) -> None:  # noqa: ANN401 -- of several types
    """List messages, newest first; `messages show ID` shows one with its attempts."""
    if context.invoked_subcommand is None:
        _list(_query(**conditions), limit=limit, as_json=as_json)


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, retry and discard the messages that are not tried again by themselves."""


@dead_letters.command("list")
@_SELECTION
@_AGES
@_LIMIT
@_AS_JSON
def list_dead_letters(*, limit: int, as_json: bool, **conditions: Any) -> None:  # noqa: ANN401 -- of several types
    """List dead letters, the last first."""
    _list(_query(state=MessageState.DEAD, **conditions), limit=limit, as_json=as_json)


@click.command("show")
@_ID
@_PAYLOAD
@_AS_JSON
def show(message_id: UUID, *, with_payload: bool, as_json: bool) -> None:
    """Show message ID: state, times, errors and attempts."""
    details = _run(lambda inspection: inspection.get(message_id))
    if as_json:
        click.echo(json.dumps(_fields_of(details, with_payload=with_payload), ensure_ascii=False))
    else:
        _print_details(_fields_of(details, with_payload=with_payload))


messages.add_command(show)
dead_letters.add_command(show)


_SELECTORS = _options(
    click.argument("ids", metavar="[ID]...", nargs=-1, type=click.UUID),
    _SELECTION,
    _AGES,
    click.option("--all", "everything", is_flag=True, help="All dead letters."),
    _AS_JSON,
)


@dead_letters.command("retry")
@_SELECTORS
def retry(*, as_json: bool, **selectors: Any) -> None:  # noqa: ANN401 -- of several types
    """Try dead letters again, at once and with all attempts of their retry policy: by ID, by options, or all."""
    query = _selected(**selectors)
    repair = _run(lambda inspection: inspection.retry(query))
    _report("retried", repair, query, as_json=as_json)


@dead_letters.command("discard")
@_SELECTORS
def discard(*, as_json: bool, **selectors: Any) -> None:  # noqa: ANN401 -- of several types
    """Give dead letters up: by ID, by options, or all. They are kept as long as messages that are done."""
    query = _selected(**selectors)
    repair = _run(lambda inspection: inspection.discard(query))
    _report("discarded", repair, query, as_json=as_json)


def _run(action: Callable[[MessageInspection], Awaitable[R]]) -> R:
    settings = load_settings(WorkerSettings)
    refuse_wrong_encoding(settings.database, variable=variable_of(WorkerSettings, ("database", "url")))

    async def run() -> R:
        async with build_database(settings.database, app_version=settings.app_version) as database:
            queues = {task.name: task.queue for task in TASKS}
            return await action(build_message_inspection(database, queues=queues))

    try:
        return asyncio.run(run())
    except DomainError as error:
        raise click.ClickException(error.detail) from error


def _query(*, state: str | None = None, **conditions: Any) -> MessageQuery:  # noqa: ANN401 -- of several types
    return MessageQuery(state=MessageState(state) if state else None, **conditions)


def _selected(*, ids: Sequence[UUID], everything: bool, **conditions: Any) -> MessageQuery:  # noqa: ANN401 -- of several types
    """Return the query of a repair; raises `UsageError` unless there are ids, or conditions, or `--all`."""
    conditional = any(value is not None for value in conditions.values())
    if [bool(ids), everything, conditional].count(True) != 1:
        raise click.UsageError("Name dead letters by ID, or select them by options, or give --all.")
    return MessageQuery(ids=tuple(ids) or None, **conditions)


def _list(query: MessageQuery, *, limit: int, as_json: bool) -> None:
    found = _run(lambda inspection: inspection.find(query, limit=limit + 1))
    rows = [_shown(asdict(message)) for message in found[:limit]]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    if not rows:
        click.echo("no message matches", err=True)
        return
    head = ("ID", "STATE", "TASK OR EVENT", "QUEUE", "CREATED (UTC)", "ATTEMPTS", "ERROR")
    _print_table([head, *(_cells(row) for row in rows)])
    if len(found) > limit:
        click.echo(f"there are more than --limit {limit}", err=True)


def _cells(row: Mapping[str, Any]) -> Sequence[object]:
    error = row["error"] or ""
    shortened = f"{error[:_MAX_ERROR]}…" if len(error) > _MAX_ERROR else error
    name = row["task"] or row["event"]
    return row["id"], row["state"], name, row["queue"], row["created_at"], row["attempts"], shortened


def _fields_of(details: MessageDetails, *, with_payload: bool) -> dict[str, Any]:
    payload = {"payload": details.payload} if with_payload else {}
    return _shown(asdict(details.message) | payload | {"history": [asdict(each) for each in details.attempts]})


def _shown(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the values as JSON has them, without secrets."""
    shown: dict[str, Any] = json.loads(redacted(values))
    return shown


def _print_details(fields: Mapping[str, Any]) -> None:
    _print_table([(name, value) for name, value in fields.items() if value is not None and name != "history"])
    if fields["history"]:
        head = ("ATTEMPT", "BEGAN (UTC)", "ENDED (UTC)", "WHERE", "ERROR")
        click.echo()
        _print_table([head, *(tuple(attempt.values()) for attempt in fields["history"])])


def _print_table(rows: Sequence[Sequence[object]]) -> None:
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    """Return a value in one line without characters that control a terminal."""
    if value is None:
        return ""
    if isinstance(value, str) and _TIME.fullmatch(value):
        return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _report(done: str, repair: Repair, query: MessageQuery, *, as_json: bool) -> None:
    """Print what a command has changed; status 1 if that is nothing."""
    count = sum(repair.changed.values())
    if as_json:
        click.echo(json.dumps({done: count, "tasks": dict(repair.changed), "foreign": repair.foreign}))
    elif count:
        click.echo(f"{done} {count}: " + ", ".join(f"{name} {number}" for name, number in repair.changed.items()))
    if repair.foreign:
        text = "are no messages of the outbox (tequipy.foreign) and cannot be retried, only discarded"
        click.echo(f"{repair.foreign} {text}", err=True)
    missing = len(set(query.ids or ())) - count - repair.foreign
    if count and missing > 0:
        click.echo(f"{missing} of the given ids are no dead letters", err=True)
    if not count:
        raise click.ClickException(
            f"no dead letter was {done}: none matches" if not repair.foreign else f"none was {done}"
        )
