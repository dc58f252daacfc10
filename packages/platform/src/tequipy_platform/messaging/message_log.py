"""The attempts at messages and their outcomes in PostgreSQL, and the purge of old messages."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, exists, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._errors import NotFound
from tequipy_platform._messages import Attempt, MessageLog, MessageState
from tequipy_platform.database import Database, delete_batch, uuid7
from tequipy_platform.messaging.models import AttemptRow, InboxRow, OutboxRow

PATIENCE: Final = timedelta(hours=1)
"""How long a message waits for a newer process, or for a broker that accepts it, before it becomes a dead letter."""
FOREIGN_TASK: Final = "tequipy.foreign"
"""The task of messages that are not from the outbox, for Celery and in the dead letters that describe them."""
MAX_ERROR_LENGTH: Final = 1000
DIED: Final = "the process of this attempt ended without an outcome"
_NO_SYNC: Final = {"synchronize_session": False}
_FIRST_WAIT: Final = timedelta(seconds=2)
_LONGEST_WAIT: Final = timedelta(minutes=1)


class SqlMessageLog(MessageLog):
    """Records each step in a transaction of its own, by the clock of the database."""

    def __init__(self, database: Database, *, redelivery: timedelta = timedelta(minutes=10)) -> None:
        self._database = database
        self._redelivery = redelivery

    async def begin(
        self, message_id: UUID, worker: str, *, redelivered: bool = False, repeated: bool = False
    ) -> Attempt | None:
        """Begin an attempt in one statement, unless an earlier one has no outcome."""
        async with self._database.sessions.begin() as session:
            row = (await session.execute(self._start(message_id, worker, _CAN_RUN))).first()
            after_death = False
            if row is None:
                last = select(
                    OutboxRow.state, OutboxRow.attempts, OutboxRow.started_at, OutboxRow.worker, _HAS_DIED
                ).where(OutboxRow.id == message_id, OutboxRow.task.is_not(None))
                found = (await session.execute(last.with_for_update())).first()
                if found is None:
                    raise NotFound
                state, number, started_at, last_worker, has_died = found
                after_death = not (repeated and last_worker == worker)
                if state != MessageState.RUNNING or (after_death and not (redelivered or has_died)):
                    return None
                start = self._start(message_id, worker, OutboxRow.state == MessageState.RUNNING)
                if after_death:
                    session.add(
                        AttemptRow(
                            message_id=message_id, number=number, started_at=started_at, worker=last_worker, error=DIED
                        )
                    )
                    start = start.values(_ONE_MORE_DEATH)
                row = (await session.execute(start)).one()
            (number, task, payload, schema, correlation_id, traceparent, failed, deaths, failing_for) = row
            return Attempt(
                message_id=message_id,
                number=number,
                task=task,
                payload=payload,
                schema_version=schema,
                correlation_id=correlation_id,
                traceparent=traceparent,
                failed_attempts=failed,
                deaths=deaths,
                failing_for=failing_for,
                after_death=after_death,
            )

    def _start(self, message_id: UUID, worker: str, condition: ColumnElement[bool]) -> Any:  # noqa: ANN401 -- a statement
        return (
            update(OutboxRow)
            .where(OutboxRow.id == message_id, OutboxRow.task.is_not(None), condition)
            .values(
                state=MessageState.RUNNING,
                attempts=OutboxRow.attempts + 1,
                started_at=func.now(),
                published_at=func.coalesce(OutboxRow.published_at, func.now()),
                redeliver_at=func.now() + self._redelivery,
                worker=worker,
            )
            .returning(
                OutboxRow.attempts,
                OutboxRow.task,
                OutboxRow.payload,
                OutboxRow.schema_version,
                OutboxRow.correlation_id,
                OutboxRow.traceparent,
                OutboxRow.failed_attempts,
                OutboxRow.deaths,
                func.now() - OutboxRow.failing_since,
            )
            .execution_options(**_NO_SYNC)
        )

    async def succeed(self, attempt: Attempt) -> None:
        """Record the success, whatever other attempts have recorded."""
        await self._execute(
            update(OutboxRow)
            .where(OutboxRow.id == attempt.message_id, OutboxRow.state != MessageState.DONE)
            .values(state=MessageState.DONE, settled_at=func.now(), error=null())
        )

    async def fail(self, attempt: Attempt, error: str, *, retry_in: timedelta | None) -> None:
        """Store the failed attempt, and when the next one is due."""
        values = {
            "failed_attempts": OutboxRow.failed_attempts + 1,
            "failing_since": func.coalesce(OutboxRow.failing_since, func.now()),
            "error": error[:MAX_ERROR_LENGTH],
        }
        # First the outbox, then the attempts, as in `begin`: in the other order both could wait for each other.
        outcome = update(OutboxRow).where(_is_current(attempt)).values(**values, **_next_state(retry_in))
        async with self._database.sessions.begin() as session:
            row = (
                await session.execute(
                    outcome.returning(OutboxRow.started_at, OutboxRow.worker, func.now()), execution_options=_NO_SYNC
                )
            ).first()
            if row is None:
                return
            started_at, worker, ended_at = row
            session.add(
                AttemptRow(
                    message_id=attempt.message_id,
                    number=attempt.number,
                    started_at=started_at,
                    ended_at=ended_at,
                    worker=worker,
                    error=error[:MAX_ERROR_LENGTH],
                )
            )

    async def postpone(self, attempt: Attempt, wait: timedelta) -> None:
        """Store when the next attempt is due."""
        await self._execute(update(OutboxRow).where(_is_current(attempt)).values(**_next_state(wait)))

    async def wait_for_release(self, attempt: Attempt, reason: str) -> bool:
        """Make the message due again later; the wait doubles up to a minute."""
        await self._execute(update(OutboxRow).where(_is_current(attempt)).values(**wait_or_give_up(reason)))
        async with self._database.sessions() as session:
            state = await session.scalar(select(OutboxRow.state).where(OutboxRow.id == attempt.message_id))
        return state != MessageState.DEAD

    async def hand_back(self, attempt: Attempt) -> None:
        """Give the message the state that it had before the attempt."""
        await self._execute(
            update(OutboxRow).where(_is_current(attempt)).values(state=MessageState.PUBLISHED, waiting_since=null())
        )

    async def record_foreign(self, text: str, *, queue: str | None, message_id: UUID | None = None) -> None:
        """Insert a dead letter; a repeated delivery of the same message changes nothing."""
        await self._execute(
            insert(OutboxRow)
            .values(
                id=message_id or uuid7(),
                task=FOREIGN_TASK,
                payload={},
                state=MessageState.DEAD,
                queue=queue,
                created_at=func.now(),
                settled_at=func.now(),
                error=text[:MAX_ERROR_LENGTH],
            )
            .on_conflict_do_nothing()
        )

    async def purge_messages(
        self, *, outbox_age: timedelta, dead_letter_age: timedelta, inbox_age: timedelta, batch_size: int
    ) -> None:
        """Delete outbox rows and inbox rows in batches."""
        age = case((OutboxRow.state == MessageState.DEAD, dead_letter_age), else_=outbox_age)
        # The second condition is implied by the first; it is the one that an index covers.
        old = and_(
            OutboxRow.settled_at < func.now() - age,
            OutboxRow.settled_at < func.now() - min(outbox_age, dead_letter_age),
        )
        more = True
        while more:
            async with self._database.sessions.begin() as session:
                more = await _purge_batch(session, old, inbox_age=inbox_age, limit=batch_size)

    async def _execute(self, statement: Any) -> None:  # noqa: ANN401 -- a statement
        async with self._database.sessions.begin() as session:
            await session.execute(statement, execution_options=_NO_SYNC)


def build_message_log(database: Database, *, redelivery: timedelta = timedelta(minutes=10)) -> SqlMessageLog:
    """Return the log in which a worker records attempts.

    `redelivery` is the time after which an attempt without an outcome is repeated: the broker's visibility timeout.
    """
    return SqlMessageLog(database, redelivery=redelivery)


# A message that waits for its next publication runs only if that is due: the relay may have died before it recorded it.
_CAN_RUN: Final = or_(
    OutboxRow.state == MessageState.PUBLISHED,
    and_(OutboxRow.state.in_([MessageState.PENDING, MessageState.FAILED]), OutboxRow.not_before <= func.now()),
)
# The time of a running attempt is over, or the relay, which waits for that, has published its message again.
_HAS_DIED: Final = or_(OutboxRow.redeliver_at <= func.now(), OutboxRow.published_at > OutboxRow.started_at)
_ONE_MORE_DEATH: Final[dict[Any, Any]] = {
    OutboxRow.deaths: OutboxRow.deaths + 1,
    OutboxRow.failed_attempts: OutboxRow.failed_attempts + 1,
    OutboxRow.failing_since: func.coalesce(OutboxRow.failing_since, func.now()),
    OutboxRow.error: DIED,
}


def wait_or_give_up(reason: str | ColumnElement[str]) -> dict[str, Any]:
    """Return the columns of a message that no process can handle yet: due again later, or dead after `PATIENCE`.

    The wait is the time that the message has waited before, between two seconds and a minute.
    """
    waited = func.now() - func.coalesce(OutboxRow.waiting_since, func.now())
    over = waited >= PATIENCE
    return {
        "state": case((over, MessageState.DEAD), else_=MessageState.FAILED),
        "settled_at": case((over, func.now()), else_=null()),
        "waiting_since": func.coalesce(OutboxRow.waiting_since, func.now()),
        "not_before": func.now() + func.least(_LONGEST_WAIT, func.greatest(_FIRST_WAIT, waited)),
        "published_at": null(),
        "redeliver_at": null(),
        "publications": 0,
        "error": reason,
    }


def _next_state(wait: timedelta | None) -> dict[str, Any]:
    """Return the columns of a message that this release can handle; a later wait for a release begins anew."""
    if wait is None:
        return {"state": MessageState.DEAD, "settled_at": func.now(), "waiting_since": null()}
    return {
        "state": MessageState.FAILED,
        "waiting_since": null(),
        "published_at": None,
        "redeliver_at": None,
        "publications": 0,
        "not_before": func.now() + wait,
    }


def _is_current(attempt: Attempt) -> ColumnElement[bool]:
    """Return the condition that no other attempt has begun since, and that the message is not settled."""
    return and_(
        OutboxRow.id == attempt.message_id,
        OutboxRow.attempts == attempt.number,
        OutboxRow.state == MessageState.RUNNING,
    )


async def _purge_batch(session: AsyncSession, old: ColumnElement[bool], *, inbox_age: timedelta, limit: int) -> bool:
    """Delete up to `limit` expired rows of each table; return whether more may be left.

    Skips rows that another process is deleting.
    """
    # A message that may still be delivered, a dead letter by a person's retry, needs its row whatever its age is.
    may_return = exists().where(
        OutboxRow.id == InboxRow.message_id, OutboxRow.state.not_in([MessageState.DONE, MessageState.DISCARDED])
    )
    handled = and_(InboxRow.taken_at < func.now() - inbox_age, ~may_return)
    settled = await delete_batch(session, OutboxRow, old, limit=limit)
    return limit in {settled, await delete_batch(session, InboxRow, handled, limit=limit)}
