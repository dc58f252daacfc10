"""The background tasks of reporting."""

from tequipy_platform.testing import RecordingMailer
from tequipy_reporting.tasks import TASKS, build_handlers
from tequipy_reporting.testing import build_fake_reporting


def test_every_task_has_a_handler() -> None:
    """The catalogue and the handlers name the same tasks."""
    assert set(build_handlers(build_fake_reporting(), {}, RecordingMailer())) == set(TASKS)
