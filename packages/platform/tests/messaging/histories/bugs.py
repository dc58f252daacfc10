"""Bugs that are put in on purpose: each breaks a promise that the histories check."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tequipy_observability import Span
from tequipy_platform import Attempt, Batch
from tequipy_platform.messaging import deliveries
from tequipy_platform.messaging.deliveries import Deliveries, Outcome
from tequipy_platform.messaging.relay import Relay
from tequipy_platform.testing import MemoryInbox, MemoryMessage
from tequipy_platform.testing.message_log import MemoryMessageLog
from tequipy_platform.testing.unpublished import MemoryUnpublishedMessages

Bug = Callable[[pytest.MonkeyPatch], None]


def settle_before_the_effect(patch: pytest.MonkeyPatch) -> None:
    original = Deliveries._attempt

    async def attempt(self: Deliveries, attempt: Attempt, step: Span) -> Outcome:
        await self._persist(lambda: self._messages.succeed(attempt))
        return await original(self, attempt, step)

    patch.setattr(Deliveries, "_attempt", attempt)


def store_late_outcomes(patch: pytest.MonkeyPatch) -> None:
    async def current(self: MemoryMessageLog, attempt: Attempt) -> MemoryMessage | None:
        return await self._messages.unlocked(attempt.message_id)

    patch.setattr(MemoryMessageLog, "_current", current)


def settle_events_of_newer_producers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tequipy_platform.testing.unpublished.is_newer", lambda *_, **__: False)


def count_no_deaths(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryMessageLog, "_count_death", lambda *_: None)


def count_copies_as_deaths(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tequipy_platform.testing.message_log._has_died", lambda *_: True)


def count_messages_handed_back_as_deaths(patch: pytest.MonkeyPatch) -> None:
    async def hand_back(self: MemoryMessageLog, attempt: Attempt) -> None:
        """Leave the message running."""

    patch.setattr(MemoryMessageLog, "hand_back", hand_back)


def take_a_refusal_for_an_outage(patch: pytest.MonkeyPatch) -> None:
    async def publish_singly(_self: Relay, _batch: Batch, error: Exception) -> Exception:
        return error

    patch.setattr(Relay, "_publish_singly", publish_singly)


def run_old_copies(patch: pytest.MonkeyPatch) -> None:
    original = MemoryMessageLog.begin

    async def begin(self: MemoryMessageLog, message_id: UUID, worker: str, **how: bool) -> Any:
        row = await self._messages.unlocked(message_id)
        if row is not None and row.state in {"done", "failed"}:
            row.state = "published"
        return await original(self, message_id, worker, **how)

    patch.setattr(MemoryMessageLog, "begin", begin)


def give_up_outcomes_when_the_database_fails(patch: pytest.MonkeyPatch) -> None:
    async def record(_self: Deliveries, outcome: Outcome, write: Callable[[], Any]) -> Outcome:
        with suppress(Exception):
            await write()
        return outcome

    patch.setattr(Deliveries, "_record", record)


def ignore_the_inbox(patch: pytest.MonkeyPatch) -> None:
    async def take(*_: object) -> bool:
        return True

    patch.setattr(MemoryInbox, "take", take)


def wait_for_no_release(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tequipy_platform.testing.message_log.PATIENCE", timedelta(0))


def log_no_dead_letters(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deliveries.logger, "error", lambda *_, **__: None)


def miss_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryUnpublishedMessages, "_missed", lambda *_: [])


def fan_out_under_new_ids(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tequipy_platform.testing.unpublished.derived_id", lambda *_: uuid4())
