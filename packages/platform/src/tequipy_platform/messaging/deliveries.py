"""One delivery of a message: an attempt of its handler, and the record of its outcome."""

import asyncio
import inspect
import itertools
import json
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

from tequipy_observability import RequestContext, Span, accept_correlation_id, redacted, request_context
from tequipy_platform._errors import NotFound
from tequipy_platform._message_spans import processing_span
from tequipy_platform._messages import MESSAGE_SCHEMA, Attempt, MessageLog
from tequipy_platform._tasks import Delivery, Handler, RetryPolicy, Task

R = TypeVar("R")

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_MAX_TEXT: Final = 500

logger = logging.getLogger(__name__)


class Outcome(Enum):
    """How a delivery ended; everything but `RETURNED` ends the broker's message."""

    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    """The attempt failed, or no process of this release can handle the message: the outbox sends it again."""
    FAILED = "failed"
    """The message is a dead letter."""
    IGNORED = "ignored"
    """The message was settled before, or waits in the outbox: this was an old copy."""
    RETURNED = "returned"
    """The broker has to deliver the message again: the worker stops, or cannot reach the database."""


class Stop(Enum):
    """Why a running delivery is interrupted."""

    TIME_LIMIT = "the attempt exceeded its time limit"
    SHUTDOWN = "the worker stops"


class Deliveries:
    """Handles one delivery at a time; whatever its handler raises is one failed attempt.

    `jitter` returns a random number between 0 and its argument.
    """

    def __init__(
        self,
        handlers: Mapping[Task, Handler],
        messages: MessageLog,
        *,
        jitter: Callable[[float], float] = lambda most: random.uniform(0, most),  # noqa: S311 -- no secret
    ) -> None:
        self._tasks = {task.name: (task, handler) for task, handler in handlers.items()}
        self._messages = messages
        self._jitter = jitter
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._running: asyncio.Task[BaseException | None] | None = None
        self._stop: Stop | None = None

    def interrupt(self, reason: Stop) -> None:
        """Cancel the running handler; call it on the event loop. Steps of the message log are finished first."""
        if self._stop is None:
            self._stop = reason
            if self._running is not None:
                self._running.cancel()

    async def handle(self, message_id: UUID, *, queue: str | None = None, redelivered: bool = False) -> Outcome:
        """Run the message's handler unless it is settled or runs elsewhere, and record the outcome.

        `redelivered` is the broker's word that an earlier delivery of this copy was not acknowledged.
        """
        self._forget_time_limit()
        try:
            attempt = await self._begin(message_id, redelivered=redelivered)
        except NotFound:
            text = f"message {message_id} is not in the outbox"
            logger.error("message_unknown", extra={"message_id": str(message_id)})  # noqa: TRY400 -- no traceback
            return await self._record(
                Outcome.FAILED, lambda: self._messages.record_foreign(text, queue=queue, message_id=message_id)
            )
        except _InterruptedError:
            return Outcome.RETURNED
        if attempt is None:
            return Outcome.IGNORED
        context = RequestContext(
            correlation_id=accept_correlation_id(attempt.correlation_id),
            traceparent=attempt.traceparent,
            task_id=str(message_id),
            task_name=attempt.task,
        )
        with request_context(context), processing_span(attempt) as step:
            outcome = await self._attempt(attempt, step)
            step.set("tequipy.outcome", outcome.value)
            if outcome is Outcome.FAILED:
                step.fail(outcome.value)
            return outcome

    async def handle_foreign(self, text: str, *, queue: str | None = None) -> Outcome:
        """Store a dead letter for a message that is not from the outbox."""
        self._forget_time_limit()
        logger.error("message_undecodable", extra={"queue": queue, "error": text})
        return await self._record(Outcome.FAILED, lambda: self._messages.record_foreign(text, queue=queue))

    def _forget_time_limit(self) -> None:
        """Forget a time limit that came after the end of the last delivery; a stop of the worker stays."""
        if self._stop is Stop.TIME_LIMIT:
            self._stop = None

    async def _begin(self, message_id: UUID, *, redelivered: bool) -> Attempt | None:
        # After an error, this process may have begun the attempt without being told.
        tries = itertools.count()
        return await self._persist(
            lambda: self._messages.begin(message_id, self._worker, redelivered=redelivered, repeated=next(tries) > 0)
        )

    async def _attempt(self, attempt: Attempt, step: Span) -> Outcome:
        task, handler = self._tasks.get(attempt.task, (None, None))
        reason = _unsupported(attempt, handler)
        if task is None or handler is None or reason is not None:
            return await self._wait_for_release(attempt, reason or f"no task {attempt.task!r} in this release")
        # The last death may have been noticed by an older release, which left the message to this one.
        if attempt.after_death or attempt.deaths >= task.retry.deaths:
            outcome = await self._after_deaths(attempt, task.retry)
            if outcome is not None:
                return outcome
        delivery = Delivery(attempt.message_id, attempt.task, attempt.failed_attempts + 1)
        started = time.perf_counter()
        error = await self._run(handler, delivery, attempt.payload)
        fields: dict[str, object] = {
            "attempt": delivery.attempt,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
        }
        if error is None:
            logger.info("task_succeeded", extra=fields)
            return await self._record(Outcome.SUCCEEDED, lambda: self._messages.succeed(attempt))
        if self._stop is Stop.SHUTDOWN and isinstance(error, asyncio.CancelledError):
            logger.info("task_handed_back", extra=fields)
            await self._record(Outcome.RETURNED, lambda: self._messages.hand_back(attempt))
            return Outcome.RETURNED
        step.fail("time_limit" if self._stop is Stop.TIME_LIMIT else error)
        return await self._fail(attempt, task.retry, error, fields)

    async def _run(self, handler: Handler, delivery: Delivery, payload: Mapping[str, Any]) -> BaseException | None:
        """Run the handler in a task of its own, which can be cancelled; return what it raised."""

        async def call() -> BaseException | None:
            try:
                await handler(delivery, **payload)
            except BaseException as error:  # noqa: BLE001 -- SystemExit and KeyboardInterrupt would end the event loop
                return error
            return None

        self._running = asyncio.create_task(call())
        if self._stop is not None:
            self._running.cancel()
        try:
            return await self._running
        except asyncio.CancelledError as error:  # cancelled before it started
            return error
        finally:
            self._running = None

    async def _fail(
        self, attempt: Attempt, policy: RetryPolicy, error: BaseException, fields: dict[str, object]
    ) -> Outcome:
        text = self._stop.value if self._stop is Stop.TIME_LIMIT else describe(error)
        number = attempt.failed_attempts + 1
        if policy.is_final_failure(number, error, failing_for=attempt.failing_for or timedelta(0)):
            logger.error("task_failed", exc_info=error, extra=fields | {"error": text})
            return await self._record(Outcome.FAILED, lambda: self._messages.fail(attempt, text, retry_in=None))
        # Full jitter, so that tasks which failed together are not retried together.
        wait = self._jitter(policy.max_wait(number).total_seconds())
        logger.warning("task_retried", extra=fields | {"error": text, "retry_in_seconds": round(wait, 3)})
        retry_in = timedelta(seconds=wait)
        return await self._record(Outcome.RETRIED, lambda: self._messages.fail(attempt, text, retry_in=retry_in))

    async def _after_deaths(self, attempt: Attempt, policy: RetryPolicy) -> Outcome | None:
        """Log the death of the last attempt's process; return None if the message may run again at once."""
        fields: dict[str, object] = {"attempt": attempt.failed_attempts, "deaths": attempt.deaths}
        if attempt.deaths >= policy.deaths:
            text = f"its process ended {attempt.deaths} times without an outcome"
            logger.error("task_failed", extra=fields | {"error": text})
            return await self._record(Outcome.FAILED, lambda: self._messages.fail(attempt, text, retry_in=None))
        logger.warning("task_process_died", extra=fields)
        if attempt.deaths == 1:
            return None
        wait = timedelta(seconds=self._jitter(policy.max_wait(attempt.deaths).total_seconds()))
        return await self._record(Outcome.RETRIED, lambda: self._messages.postpone(attempt, wait))

    async def _wait_for_release(self, attempt: Attempt, reason: str) -> Outcome:
        try:
            waits = await self._persist(lambda: self._messages.wait_for_release(attempt, reason))
        except _InterruptedError:
            return Outcome.RETURNED
        if waits:
            logger.warning("task_waits_for_release", extra={"error": reason})
            return Outcome.RETRIED
        logger.error("task_failed", extra={"attempt": attempt.failed_attempts, "error": reason})
        return Outcome.FAILED

    async def _record(self, outcome: Outcome, write: Callable[[], Awaitable[None]]) -> Outcome:
        try:
            await self._persist(write)
        except _InterruptedError:
            return Outcome.RETURNED
        return outcome

    async def _persist(self, write: Callable[[], Awaitable[R]]) -> R:
        """Repeat a step of the message log until the database accepts it or the delivery is interrupted."""
        pause, logged = _FIRST_PAUSE, False
        while True:
            try:
                return await write()
            except NotFound:
                raise
            except Exception as error:  # any outage of the database
                if not logged:
                    logger.warning("message_log_unavailable", extra={"error": describe(error)})
                    logged = True
                if self._stop is not None:
                    raise _InterruptedError from error
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)


class _InterruptedError(Exception):
    """The delivery was interrupted while the database was unreachable."""


def check_handlers(tasks: Sequence[Task], handlers: Mapping[Task, Handler]) -> None:
    """Raise `ValueError` unless there is a handler for each task of the catalogue, and no other."""
    if set(tasks) != set(handlers):
        names = sorted(task.name for task in set(tasks) ^ set(handlers))
        raise ValueError(f"tasks and handlers differ: {', '.join(names)}")


def describe(error: BaseException) -> str:
    """Return type and text of an error, shortened and without secrets, so that PostgreSQL can store it.

    U+0000 and lone surrogates are escaped, and an error whose text cannot be formed has none.
    """
    name = type(error).__name__
    try:
        # Redacted before it is shortened, because a part of a secret has no longer its form.
        text = json.loads(redacted(str(error)[: 4 * _MAX_TEXT]))
    except BaseException:  # noqa: BLE001 -- the error of a handler can do anything
        return f"{name}: (its text cannot be formed)"
    storable = text.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")
    return f"{name}: {storable}"[:_MAX_TEXT] if text else name


def _unsupported(attempt: Attempt, handler: Handler | None) -> str | None:
    """Return why this release cannot handle the message, or None if it can."""
    if attempt.schema_version > MESSAGE_SCHEMA:
        return f"the message has format {attempt.schema_version}, this release reads up to {MESSAGE_SCHEMA}"
    if handler is None:
        return None
    try:
        inspect.signature(handler).bind(None, **attempt.payload)
    except TypeError as error:
        return f"the handler does not accept the payload: {error}"
    return None
