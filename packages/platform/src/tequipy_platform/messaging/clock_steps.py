"""The correction of times that the database wrote while its clock was ahead."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import Update, case, func, or_, update

from tequipy_platform._messages import MessageState
from tequipy_platform.messaging.models import OutboxRow, has_state

_MAX_CLOCK_STEP: Final = timedelta(minutes=1)
"""If a time that the database wrote is further ahead than this, its clock was ahead and has been corrected."""


def corrections(redelivery: timedelta) -> Iterator[Update]:
    """Yield statements that make due at once what the database postponed while its clock was ahead.

    A delay that the application asked for is kept: its row has no failed attempt and no publication. An event has no
    such delay. A running attempt gets the time `redelivery` from now on.
    """
    now, ahead = func.now(), func.now() + _MAX_CLOCK_STEP
    since = {
        column.key: case((column > now, now), else_=column)
        for column in (OutboxRow.failing_since, OutboxRow.waiting_since)
    }
    # A message waits for a release, or for a broker that accepts it, never longer than a clock step.
    postponed = or_(OutboxRow.failing_since > ahead, OutboxRow.started_at > ahead, OutboxRow.waiting_since.is_not(None))
    late = update(OutboxRow).where(OutboxRow.not_before > ahead).values(not_before=now, **since)
    yield late.where(OutboxRow.task.is_not(None), has_state(MessageState.FAILED), postponed)
    yield late.where(OutboxRow.event.is_not(None), has_state(MessageState.PENDING))
    yield (
        update(OutboxRow)
        .where(has_state(MessageState.PUBLISHED), OutboxRow.published_at > ahead)
        .values(state=MessageState.PENDING, not_before=now, published_at=None, **since)
    )
    yield (
        update(OutboxRow)
        .where(has_state(MessageState.RUNNING), OutboxRow.redeliver_at > ahead, OutboxRow.started_at > ahead)
        .values(redeliver_at=now + redelivery, started_at=now, published_at=now, **since)
    )
