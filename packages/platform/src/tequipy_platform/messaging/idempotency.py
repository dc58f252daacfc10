"""Idempotency keys in PostgreSQL, within the transaction of the unit of work."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_platform._clock import Clock
from tequipy_platform._events import JSON
from tequipy_platform._idempotency import (
    IDEMPOTENCY_TTL,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    IdempotencyKeys,
    IdempotentRequest,
)
from tequipy_platform._messages import check_payload
from tequipy_platform.database import delete_batch
from tequipy_platform.messaging.models import IdempotencyKeyRow


class SqlIdempotencyKeys(IdempotencyKeys):
    """Rows of `platform.idempotency_keys`, and an advisory lock for each key in use.

    The lock ends with its transaction, whatever ends that: a process that dies leaves nothing to clean up.
    """

    def __init__(self, session: AsyncSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def begin(self, caller: str, request: IdempotentRequest) -> Mapping[str, JSON] | None:
        """Lock the key, and then select its row: a transaction that held the lock before has committed by now."""
        # A separator that is in none of the texts, so that no two keys are the same text.
        name = f"idempotency\n{caller}\n{request.route}\n{request.key}"
        locked = select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))
        if not await self._session.scalar(locked):
            raise IdempotencyKeyInUse
        found = await self._session.execute(
            select(IdempotencyKeyRow.digest, IdempotencyKeyRow.response).where(
                IdempotencyKeyRow.caller == caller,
                IdempotencyKeyRow.route == request.route,
                IdempotencyKeyRow.key == request.key,
                ~self._expired(),
            )
        )
        kept = found.one_or_none()
        if kept is None:
            return None
        if kept.digest != request.digest:
            raise IdempotencyKeyReused
        response: Mapping[str, JSON] = kept.response
        return response

    async def keep(self, caller: str, request: IdempotentRequest, response: Mapping[str, JSON]) -> None:
        """Insert the response, in place of an expired one."""
        check_payload(request.route, response)
        values: dict[str, Any] = {
            "digest": request.digest,
            "response": dict(response),
            "created_at": self._clock.now(),
        }
        keep = insert(IdempotencyKeyRow).values(caller=caller, route=request.route, key=request.key, **values)
        key = [IdempotencyKeyRow.caller, IdempotencyKeyRow.route, IdempotencyKeyRow.key]
        await self._session.execute(keep.on_conflict_do_update(index_elements=key, set_=values))

    async def purge(self, *, limit: int) -> int:
        """Delete expired rows, except those that another process is deleting."""
        return await delete_batch(self._session, IdempotencyKeyRow, self._expired(), limit=limit)

    def _expired(self) -> ColumnElement[bool]:
        return IdempotencyKeyRow.created_at <= self._clock.now() - IDEMPOTENCY_TTL
