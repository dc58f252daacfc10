"""The metric of operations by outcome."""

import asyncio

import pytest

from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.testing import RecordingOperations
from tequipy_platform import NotFound


class Service:
    """A service whose only operation ends as the test specifies."""

    def __init__(self) -> None:
        self.recorded = RecordingOperations()
        self._operations: Operations = self.recorded

    @counted("work")
    async def work(self, ending: Exception | None = None, *, wait: bool = False) -> str:
        if wait:
            await asyncio.Event().wait()
        if ending is not None:
            raise ending
        return "done"


async def test_each_outcome_has_its_status() -> None:
    """A result counts as ok, a domain error as its code, any other error as `error`; all reach the caller."""
    service = Service()
    assert await service.work() == "done"
    for error in (NotFound(), NotFound(code="no_such_user"), RuntimeError()):
        with pytest.raises(type(error)):
            await service.work(error)
    assert service.recorded.counts == {
        ("work", "ok"): 1,
        ("work", "not_found"): 1,
        ("work", "no_such_user"): 1,
        ("work", "error"): 1,
    }


async def test_a_cancelled_operation_is_counted() -> None:
    """A cancelled operation counts as an error."""
    service = Service()
    task = asyncio.create_task(service.work(wait=True))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.recorded.counts == {("work", "error"): 1}
