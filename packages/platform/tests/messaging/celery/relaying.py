"""Helpers of the relay's tests: rows that are committed, and messages that were published."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from celery import Celery
from redis import Redis
from sqlalchemy import update

from tequipy_platform import SystemClock, Task
from tequipy_platform.database import Database, uuid7
from tequipy_platform.messaging import SqlUnitOfWork
from tequipy_platform.messaging.models import OutboxRow

BuildWorker = Callable[[str, Path], Celery]
RunRelay = Callable[..., AbstractAsyncContextManager[None]]
PAYLOADS: dict[str, dict[str, Any]] = {}
"""The payloads of all rows that `commit` has written, by id."""
MISSED_SOON = timedelta(seconds=3)
TASKS = [Task("test.note", on=("test.noted",)), Task("test.note_too", on=("test.noted",), queue="email")]


async def commit(database: Database, write: Callable[[SqlUnitOfWork], None]) -> list[UUID]:
    """Run one unit of work and return the ids of the outbox rows that it wrote, in order."""
    made: list[UUID] = []

    def new_id() -> UUID:
        made.append(uuid7())
        return made[-1]

    async with SqlUnitOfWork(database, SystemClock(), new_id) as work:
        write(work)
        rows = [row for row in work.session.new if isinstance(row, OutboxRow)]
        PAYLOADS.update({str(row.id): row.payload for row in rows})
    return made


def published(broker_url: str, queue: str = "default") -> list[dict[str, Any]]:
    """Return the waiting messages of a broker queue, oldest first, with the payloads of their rows."""
    with Redis.from_url(broker_url) as redis:
        messages = [json.loads(raw) for raw in redis.lrange(queue, 0, -1)]
    for message in messages:
        arguments = json.loads(base64.b64decode(message["body"]))[:2]
        assert arguments == [[], {}], "the broker gets no payload"
    headers = [message["headers"] for message in reversed(messages)]
    return [header | {"payload": PAYLOADS.get(header["id"], {})} for header in headers]


async def until(probe: Callable[[], bool], *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def ids(broker_url: str) -> list[str]:
    """Return the ids of the messages waiting in the broker."""
    return [str(message["id"]) for message in published(broker_url)]


async def row_of(database: Database, row_id: UUID) -> OutboxRow:
    async with database.sessions() as session:
        return await session.get_one(OutboxRow, row_id)


async def change(database: Database, row_id: UUID, **values: object) -> None:
    async with database.sessions.begin() as session:
        await session.execute(update(OutboxRow).where(OutboxRow.id == row_id).values(**values))
