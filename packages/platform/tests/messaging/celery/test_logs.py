"""Celery's log about attempts: what the deliveries log themselves is not repeated, and nothing else is lost."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery import Task as CeleryTask
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject, Retry

from tequipy_platform.messaging.celery.logs import drop_repeated_records
from tequipy_platform.messaging.celery.tasks import TaskFailed


@pytest.fixture
def celery() -> Iterator[Celery]:
    app = Celery("test", broker="memory://", set_as_current=False)
    drop_repeated_records(TaskFailed)
    yield app
    app.close()


def attempt(celery: Celery, error: BaseException | None, **payload: object) -> None:
    """Make one attempt as a child process does; it ends by the error."""

    def run(self: CeleryTask[Any, Any], /) -> None:  # noqa: ARG001 -- Celery's signature
        if error is not None:
            raise error

    task = celery.task(name="test.run", bind=True, shared=False)(run)
    build_tracer("test.run", task, app=celery)("id", [], payload, {})


@pytest.mark.parametrize("error", [None, TaskFailed("dead"), Reject("returned"), Ignore(), Retry("later")], ids=repr)
def test_an_ordinary_outcome_is_not_logged_twice(
    celery: Celery, caplog: pytest.LogCaptureFixture, error: BaseException | None
) -> None:
    """Success, dead letter, return, ignored message and retry are logged by the deliveries alone."""
    caplog.set_level("INFO")
    attempt(celery, error)
    assert [record.message for record in caplog.records if record.name.startswith("celery.")] == []


class UnprintableError(Exception):
    """An error without any text."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "payload"), [(RuntimeError("a fault of the adapter"), {}), (UnprintableError(), {}), (None, {"self": 1})]
)
def test_any_other_error_is_logged(
    celery: Celery, caplog: pytest.LogCaptureFixture, error: Exception | None, payload: dict[str, object]
) -> None:
    """An error of the adapter, one without a text, and a payload that the body does not accept are logged once."""
    attempt(celery, error, **payload)
    (record,) = [record for record in caplog.records if record.name.startswith("celery.")]
    assert record.levelname == "ERROR"
    assert "test.run" in record.message
