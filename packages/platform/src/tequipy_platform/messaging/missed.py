"""Messages that the broker or their worker has lost, as the relay finds them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, false, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tequipy_platform._messages import MessageState
from tequipy_platform.messaging.models import OutboxRow, has_state

_PROBE_AFTER: Final = timedelta(seconds=30)
"""A queue to which nothing was published for this long gets its oldest message again, to find out what is lost."""

_LOST_ATTEMPT: Final = and_(has_state(MessageState.RUNNING), OutboxRow.redeliver_at <= func.now())
_MISSED: Final = and_(has_state(MessageState.PUBLISHED), OutboxRow.redeliver_at <= func.now())
# Its last publication was received. One from a time when the database's clock was ahead tells nothing.
_RECEIVED: Final = and_(
    OutboxRow.started_at.is_not(None),
    OutboxRow.started_at >= OutboxRow.published_at,
    OutboxRow.published_at <= func.now(),
)

COLUMNS: Final = (
    OutboxRow.id,
    OutboxRow.task,
    OutboxRow.correlation_id,
    OutboxRow.traceparent,
    OutboxRow.producer_version,
)


async def lock_missed(session: AsyncSession, redelivery: timedelta, limit: int) -> list[Any]:
    """Lock messages that the broker or their worker has lost.

    The broker's queues are in order. So a published message has left its queue if a later one has been received, and is
    only waiting if none has. If none was published lately either, the oldest one is published as a probe.
    Messages of one batch have the same times, so their ids decide.
    """
    lost = select_unlocked(COLUMNS, _LOST_ATTEMPT, OutboxRow.redeliver_at, OutboxRow.id, limit=limit)
    rows = list((await session.execute(lost)).all())
    # None: handed back before the relay recorded the publication, or published before migration 0006.
    for queue in [None, *await session.scalars(_QUEUES)]:
        received = await session.scalar(
            select(func.max(OutboxRow.published_at)).where(OutboxRow.queue == queue, _RECEIVED)
        )
        of_queue = and_(_MISSED, OutboxRow.queue == queue)
        passed = and_(of_queue, OutboxRow.published_at < received) if received else false()
        missed = select_unlocked(COLUMNS, passed, OutboxRow.published_at, OutboxRow.id, limit=limit)
        found = (await session.execute(missed)).all()
        if not found:
            newest = await session.scalar(
                select(func.max(OutboxRow.published_at) < func.now() - min(_PROBE_AFTER, redelivery)).where(
                    OutboxRow.queue == queue, has_state(MessageState.PUBLISHED)
                )
            )
            probe = select_unlocked(COLUMNS, of_queue, OutboxRow.published_at, OutboxRow.id, limit=1)
            found = (await session.execute(probe)).all() if newest else []
        rows += found
    return rows[:limit]


def select_unlocked(
    columns: Sequence[Any], due: ColumnElement[bool], *order: InstrumentedAttribute[Any], limit: int
) -> Select[Any]:
    """Return a statement that locks and selects rows which no other relay has locked."""
    return select(*columns).where(due).order_by(*order).limit(limit).with_for_update(skip_locked=True)


def _queues() -> Select[Any]:
    """Return a statement for the queues of published messages; it reads one entry of the index for each of them.

    `distinct` would read all published messages, of which there are many when the workers are stopped.
    """
    published = has_state(MessageState.PUBLISHED)
    first = select(func.min(OutboxRow.queue).label("queue")).where(published)
    names = first.cte("names", recursive=True)
    following = select(func.min(OutboxRow.queue)).where(published, OutboxRow.queue > names.c.queue).scalar_subquery()
    names = names.union_all(select(following).where(names.c.queue.is_not(None)))
    return select(names.c.queue).where(names.c.queue.is_not(None))


_QUEUES: Final = _queues()
